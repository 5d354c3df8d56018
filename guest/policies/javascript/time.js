// Instants and lengths of time.
//
// The 64-bit integers of the host are numbers, exact up to 2⁵³, which is more seconds than anything here is old. A length
// of time that an operator writes can be longer, so those are BigInts.

// The longest first. Weeks are read, never written.
const UNITS = [
  ["w", 604_800n],
  ["d", 86_400n],
  ["h", 3_600n],
  ["m", 60n],
  ["s", 1n],
];

const MOST_SECONDS = 2n ** 64n - 1n;

// A length of time that cannot be read: why, without the text itself.
export class AgeError extends Error {}

// Reads `30d`, `12h`, `90m` or `1w2d`: each unit at most once, the longer ones first.
export function parseAge(text) {
  let seconds = 0n;
  let next = 0;
  let rest = text;
  do {
    const [, digits, name] = /^([0-9]+)([a-z])/.exec(rest) ?? [];
    const index = UNITS.findIndex(([unit], at) => at >= next && unit === name);
    if (index < 0) {
      throw new AgeError("not a length of time: expected a number and a unit, such as `30d`, `12h`, `90m` or `1w2d`");
    }
    seconds += BigInt(digits) * UNITS[index][1];
    if (seconds > MOST_SECONDS) throw new AgeError("too long a time");
    next = index + 1;
    rest = rest.slice(digits.length + 1);
  } while (rest !== "");
  return { seconds, nanoseconds: 0 };
}

// The two largest units that are not zero, such as `12d4h`; less than a second is `0s`.
export function writeAge({ seconds }) {
  const parts = [];
  let rest = seconds;
  for (const [name, length] of UNITS.slice(1)) {
    if (rest >= length) parts.push(`${rest / length}${name}`);
    rest %= length;
  }
  return parts.length > 0 ? parts.slice(0, 2).join("") : "0s";
}

// How long ago an instant was; null where it lies in the future.
export function ageOf(at, now) {
  if (compareInstants(at, now) > 0) return null;
  const borrow = now.nanoseconds < at.nanoseconds;
  return {
    seconds: BigInt(now.seconds) - BigInt(at.seconds) - (borrow ? 1n : 0n),
    nanoseconds: now.nanoseconds - at.nanoseconds + (borrow ? 1_000_000_000 : 0),
  };
}

// Whether an age is longer than another one.
export function isLonger(a, b) {
  return compareInstants(a, b) > 0;
}

// Negative, zero or positive, for instants and for lengths of time. Numbers and BigInts compare by value.
export function compareInstants(a, b) {
  if (a.seconds != b.seconds) return a.seconds < b.seconds ? -1 : 1;
  return a.nanoseconds - b.nanoseconds;
}
