// Keeps the newest images of each repository and what was used of late, and removes the rest.
//
// An absent option is `null`: everything here that asks for one compares with `== null`.

import { explain } from "larder:image/report@0.2.0";

import { images, removeBecause } from "./cache.js";
import { NAME, parseConfig, schema } from "./config.js";
import { CallError } from "./error.js";
import { ageOf, compareInstants, isLonger, writeAge } from "./time.js";

export const policy = {
  describe() {
    return {
      name: NAME,
      version: "0.1.0",
      summary: "Keeps the newest images of each repository and what was used of late, and removes the rest.",
      configSchema: JSON.stringify(schema),
    };
  },

  // What is thrown here becomes the error of the run.
  evaluate({ config: document, now }) {
    const config = parseConfig(document);
    if (config.keep === 0 && config.usedWithin == null) {
      throw `config of ${NAME}: ` +
        "`keep` is 0 and `used-within` is not set, which would remove every image that nothing uses: " +
        "set `keep` to at least 1, or set `used-within`";
    }
    try {
      decideAll(config, now);
    } catch (error) {
      throw error instanceof CallError ? error.message : error;
    }
  },
};

function decideAll(config, now) {
  const all = images().sort(newestFirst);
  const ranks = ranksOf(all);
  // The oldest first: a run with a goal ends as soon as that is met.
  for (let index = all.length - 1; index >= 0; index--) {
    const { reference } = all[index].handle;
    const { remove, reason } = decide(config, now, all[index], ranks[index]);
    if (remove) {
      removeBecause(reference, reason);
    } else {
      explain(reference, reason);
    }
  }
}

// Returns the place of each image among those of its repository, counted from 1; null if its arrival is not recorded.
function ranksOf(newestFirst) {
  const counts = new Map();
  return newestFirst.map(({ handle: { arrivedAt, repository } }) => {
    if (arrivedAt == null) return null;
    const rank = (counts.get(repository) ?? 0) + 1;
    counts.set(repository, rank);
    return rank;
  });
}

// Compares by arrival, the newest first and those without one last; those of one instant by reference.
function newestFirst({ handle: a }, { handle: b }) {
  if (a.arrivedAt == null || b.arrivedAt == null) {
    return (a.arrivedAt == null) - (b.arrivedAt == null) || compareTexts(a.reference, b.reference);
  }
  return compareInstants(b.arrivedAt, a.arrivedAt) || compareTexts(a.reference, b.reference);
}

// By code points, as the host orders them. `<` compares UTF-16 units, among which surrogates come too early.
function compareTexts(a, b) {
  if (!isBeyondSurrogates(a) && !isBeyondSurrogates(b)) return a < b ? -1 : a > b ? 1 : 0;
  const place = (unit) => (unit >= 0xe000 ? unit - 0x800 : unit >= 0xd800 ? unit + 0x2000 : unit);
  for (let at = 0; at < a.length && at < b.length; at++) {
    const difference = place(a.charCodeAt(at)) - place(b.charCodeAt(at));
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

function isBeyondSurrogates(text) {
  return /[\ud800-\uffff]/.test(text);
}

// Decides about the image that is the `rank`th newest of its repository, counted from 1.
function decide(config, now, { handle, usage }, rank) {
  const { repository } = handle;
  const keep = (reason) => ({ remove: false, reason });
  const holder = heldBy(usage);
  if (holder != null) return keep(holder);
  if (rank == null) return keep(`its arrival is not recorded, so its place in ${repository} is unknown`);
  if (rank <= config.keep) {
    return keep(config.keep === 1 ? `the newest of ${repository}` : `one of the ${config.keep} newest of ${repository}`);
  }
  const place = `${ordinal(rank)} newest of ${repository}`;
  const within = config.usedWithin;
  if (within == null) {
    return { remove: true, reason: `${place}, of which ${config.keep} ${config.keep === 1 ? "is" : "are"} kept` };
  }
  const { touched, age } = lastTouched(handle, now);
  const remove = age != null && isLonger(age, within);
  const outcome = remove ? "longer than" : "within";
  return { remove, reason: `${place}, ${touched}, which is ${outcome} ${writeAge(within)}` };
}

// Returns the last use or arrival of an image in words, whichever is later, and how long ago it was. An instant in the
// future has no age: it counts as just now.
function lastTouched({ lastUsedAt: used, arrivedAt: arrived }, now) {
  const isArrival = used == null || (arrived != null && compareInstants(arrived, used) > 0);
  const age = ageOf(isArrival ? arrived : used, now);
  const verb = used == null ? "never used and arrived" : isArrival ? "arrived" : "last used";
  return { touched: `${verb} ${age == null ? "in the future" : `${writeAge(age)} ago`}`, age };
}

// Returns why no policy should remove an image; null if nothing holds it.
function heldBy({ sandboxes, snapshots, pinned }) {
  const users = [];
  if (sandboxes > 0) users.push(sandboxes === 1 ? "1 sandbox" : `${sandboxes} sandboxes`);
  if (snapshots > 0) users.push(snapshots === 1 ? "1 snapshot" : `${snapshots} snapshots`);
  if (users.length > 0) return `in use by ${users.join(" and ")}`;
  return pinned ? "pinned by the operator" : null;
}

// `1st`, `2nd`, `3rd`, `4th`, …
function ordinal(number) {
  const isTeen = Math.floor(number / 10) % 10 === 1;
  return number + (isTeen ? "th" : (["th", "st", "nd", "rd"][number % 10] ?? "th"));
}
