// Removes what nobody used for a time.
//
// An absent option is `null`: compare with `== null`. A 64-bit integer is a number, exact up to 2⁵³. `console` is not
// there: `log` of `larder:image/report` takes its place.

import { list, remove } from "larder:image/images@0.1.0";
import { explain } from "larder:image/report@0.1.0";
import { listUsage } from "larder:image/usage@0.1.0";

const configSchema = {
  type: "object",
  properties: {
    "max-age-days": {
      type: "integer",
      minimum: 0,
      maximum: 4294967295,
      default: 30,
      description: "What was not used for more days than this goes.",
    },
  },
  additionalProperties: false,
};

export const policy = {
  describe() {
    return {
      name: "@NAME@",
      version: "0.1.0",
      summary: "Removes what nobody used for a time.",
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
    // Usages stand in the order of the images.
    listUsage().forEach((usage, index) => {
      const { reference } = images[index];
      const { goes, reason } = decide(images[index], usage, now, limit);
      if (goes) {
        removeBecause(reference, reason);
      } else {
        explain(reference, reason);
      }
    });
  },
};

function decide(handle, usage, now, limit) {
  if (usage.sandboxes > 0 || usage.snapshots > 0) return { goes: false, reason: "in use" };
  if (usage.pinned) return { goes: false, reason: "pinned by the operator" };
  const touched = handle.lastUsedAt ?? handle.createdAt;
  if (touched == null) return { goes: false, reason: "neither a last use nor a creation is on record" };
  const days = daysSince(touched, now);
  const verb = handle.lastUsedAt == null ? "never used and created" : "last used";
  const goes = days > limit;
  return { goes, reason: `${verb} ${days}d ago, which is ${goes ? "longer than" : "within"} ${limit}d` };
}

// Whole days; none for an instant in the future.
function daysSince(touched, now) {
  const seconds = now.seconds - touched.seconds - (touched.nanoseconds > now.nanoseconds ? 1 : 0);
  return Math.max(0, Math.floor(seconds / 86_400));
}

// Removes an image, or explains why it may not. Past a cap of the grant, the whole plan is refused.
function removeBecause(reference, reason) {
  try {
    remove(reference, false);
    explain(reference, reason);
  } catch (thrown) {
    const { tag, val } = thrown.payload ?? {};
    if (tag === "image-in-use") {
      explain(reference, `${reason}; kept because something uses it`);
    } else if (tag === "denied" && val.right !== "budget") {
      explain(reference, `${reason}; kept because ${val.message}`);
    } else {
      throw tag === "denied" ? val.message : thrown;
    }
  }
}
