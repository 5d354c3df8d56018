// What the operator configures.

import { AgeError, parseAge } from "./time.js";

export const NAME = "keep-recent-javascript";

export const schema = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  additionalProperties: false,
  description: "What the operator configures.",
  properties: {
    keep: {
      default: 3,
      description: "How many images of each repository are kept, those that arrived last.",
      format: "uint32",
      minimum: 0,
      type: "integer",
    },
    "used-within": {
      default: null,
      description: "What was used or arrived within this time is kept, too.",
      examples: ["30d", "12h", "1w2d"],
      pattern: "^([0-9]+[wdhms])+$",
      type: ["string", "null"],
    },
  },
  title: "Config",
  type: "object",
};

// Reads a config. What does not conform is thrown, with the key and what was expected.
export function parseConfig(document) {
  const { value: config, literals } = parseJson(document);
  if (config === null || typeof config !== "object" || Array.isArray(config)) {
    throw `config of ${NAME}: expected a JSON object`;
  }
  const [unknown] = Object.keys(config)
    .filter((key) => !Object.hasOwn(schema.properties, key))
    .sort();
  if (unknown !== undefined) {
    throw `config of ${NAME}: unknown key \`${unknown}\`: the keys are \`keep\` and \`used-within\``;
  }
  return {
    keep: Object.hasOwn(config, "keep") ? readKeep(config.keep, literals.get("keep")) : 3,
    usedWithin: config["used-within"] == null ? null : readUsedWithin(config["used-within"], literals.get("used-within")),
  };
}

// JSON, and of the numbers among the values of its keys how they are written: `2.0` and `2` are one number here, and
// large integers are rounded.
function parseJson(document) {
  const holders = new Map();
  const value = JSON.parse(document, function (key, value, { source } = {}) {
    if (typeof value === "number") {
      if (!holders.has(this)) holders.set(this, new Map());
      holders.get(this).set(key, source ?? String(value));
    }
    return value;
  });
  return { value, literals: holders.get(value) ?? new Map() };
}

function readKeep(value, literal) {
  if (typeof value !== "number" || !isInteger(literal)) throw refused("keep", "type", value, literal, "u32");
  if (value < 0 || value > 0xffff_ffff) throw refused("keep", "value", value, literal, "u32");
  return value;
}

function readUsedWithin(value, literal) {
  if (typeof value !== "string") throw refused("used-within", "type", value, literal, "a string");
  try {
    return parseAge(value);
  } catch (error) {
    if (!(error instanceof AgeError)) throw error;
    const shortened = [...value].slice(0, 40).join("");
    throw `config of ${NAME}: \`used-within\`: \`${shortened}\` is ${error.message}`;
  }
}

function refused(key, what, value, literal, expected) {
  return `config of ${NAME}: \`${key}\`: invalid ${what}: ${describe(value, literal)}, expected ${expected}`;
}

function isInteger(literal) {
  return /^-?[0-9]+$/.test(literal);
}

// What a value is, in words.
function describe(value, literal) {
  if (value === null) return "null";
  if (Array.isArray(value)) return "sequence";
  switch (typeof value) {
    case "boolean":
      return `boolean \`${value}\``;
    case "number":
      return `${isInteger(literal) ? "integer" : "floating point"} \`${literal}\``;
    case "string":
      return `string ${quoted(value)}`;
    default:
      return "map";
  }
}

// A string in quotes, with what cannot be seen escaped.
function quoted(text) {
  const named = { '"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0" };
  const escape = (c) => named[c] ?? `\\u{${c.charCodeAt(0).toString(16)}}`;
  return `"${text.replace(/["\\\u0000-\u001f\u007f]/g, escape)}"`;
}
