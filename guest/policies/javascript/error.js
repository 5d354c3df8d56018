// How calls to the host fail.

// A call that failed and that ends the run; the message is a sentence for the operator.
export class CallError extends Error {}

// Calls a function of the host. What it throws has the error of the WIT as `payload`: its case as `tag`, and what that
// holds as `val`.
export function attempt(call) {
  try {
    return { ok: call() };
  } catch (thrown) {
    if (thrown?.payload == null) throw thrown;
    return { error: thrown.payload };
  }
}

// What a call gives, or the error that ends the run.
export function call(function_) {
  const { ok, error } = attempt(function_);
  if (error != null) throw new CallError(sentence(error));
  return ok;
}

// An error as a sentence for the operator.
export function sentence({ tag, val }) {
  switch (tag) {
    case "image-not-found":
      return `the cache holds no image \`${val}\` that this policy may see`;
    case "image-in-use":
      return `\`${val.reference}\` is in use by ${names(val)}`;
    case "denied":
      return val.message;
    case "invalid-reference":
      return `\`${val}\` is not an image reference`;
    default:
      return val;
  }
}

function names({ sandboxes, snapshots }) {
  const all = [
    ...sandboxes.map((name) => `sandbox \`${name}\``),
    ...snapshots.map((name) => `snapshot \`${name}\``),
  ];
  const last = all.pop() ?? "a running operation";
  return all.length > 0 ? `${all.join(", ")} and ${last}` : last;
}
