// Removes what was not used for a time.
//
// An absent option is `null`: compare with `== null`. A 64-bit integer is a number, exact up to 2⁵³. `console` is not
// there: `log` of `larder:image/report` takes its place.

import { list, remove } from "larder:image/images@0.2.0";
import { explain } from "larder:image/report@0.2.0";
import { getUsage } from "larder:image/usage@0.2.0";

const configSchema = {
  type: "object",
  properties: {
    "max-age-days": {
      type: "integer",
      minimum: 0,
      maximum: 4294967295,
      default: 30,
      description: "What was not used for more days than this is removed.",
    },
  },
  additionalProperties: false,
};

export const policy = {
  describe() {
    return {
      name: "@NAME@",
      version: "0.1.0",
      summary: "Removes what was not used for a time.",
      configSchema: JSON.stringify(configSchema),
    };
  },

  // What is thrown becomes the error of the run.
  evaluate({ config, now }) {
    const { "max-age-days": limit = 30, ...others } = JSON.parse(config);
    const [unknown] = Object.keys(others);
    if (unknown != null) throw `config of @NAME@: unknown key \`${unknown}\`: the only key is \`max-age-days\``;
    if (!Number.isInteger(limit) || limit < 0 || limit > 4294967295) {
      throw "config of @NAME@: `max-age-days`: expected a whole number of days";
    }
    const images = list();
    // Usages are in the order of the images.
    const usages = getUsage(null);
    // The oldest first: a run with a goal ends as soon as that is met.
    for (let index = images.length - 1; index >= 0; index--) {
      const { reference } = images[index];
      const { isOld, reason } = decide(images[index], usages[index], now, limit);
      if (isOld) {
        removeBecause(reference, reason);
      } else {
        explain(reference, reason);
      }
    }
  },
};

function decide(handle, usage, now, limit) {
  if (usage.sandboxes > 0 || usage.snapshots > 0) return { isOld: false, reason: "in use" };
  if (usage.pinned) return { isOld: false, reason: "pinned by the operator" };
  // An arrival counts as a use.
  const instants = [handle.lastUsedAt, handle.arrivedAt].filter((instant) => instant != null);
  if (instants.length === 0) return { isOld: false, reason: "neither a last use nor an arrival is recorded" };
  const days = Math.min(...instants.map((instant) => daysSince(instant, now)));
  const isOld = days > limit;
  return { isOld, reason: `not used for ${days}d, which is ${isOld ? "longer than" : "within"} ${limit}d` };
}

// Returns whole days: 0 for an instant in the future.
function daysSince(instant, now) {
  const seconds = now.seconds - instant.seconds - (instant.nanoseconds > now.nanoseconds ? 1 : 0);
  return Math.max(0, Math.floor(seconds / 86_400));
}

// Removes an image, or explains why it may not be removed. Beyond a cap of the grant, the whole plan is refused.
function removeBecause(reference, reason) {
  try {
    remove(reference, false);
  } catch (thrown) {
    // What a failed call throws has the error of the contract as its `payload`.
    const { tag, val } = thrown.payload ?? {};
    if (tag === "denied" && val.right === "budget") throw val.message;
    if (tag === "denied" && val.right === "protected") reason += "; kept because the operator protects it";
    else if (tag === "denied") reason += "; kept because the grant does not let this policy remove it";
    else if (tag === "image-in-use") reason += "; kept because something uses it";
    else throw `${reference} could not be removed`;
  }
  explain(reference, reason);
}
