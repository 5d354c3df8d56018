// Failures of calls to the host.

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

// Returns what a call returns; an error ends the run.
export function call(function_) {
  const { ok, error } = attempt(function_);
  if (error != null) throw new CallError(sentence(error));
  return ok;
}

// Returns why a removal came to nothing, if the run can go on; null if the whole plan is refused.
export function obstacle({ tag, val }) {
  if (tag === "image-in-use") return "something uses it";
  if (tag !== "denied") return null;
  return { remove: "the grant does not let this policy remove it", protected: "the operator protects it" }[val.right];
}

// Returns an error as a sentence for the operator.
export function sentence({ tag, val }) {
  switch (tag) {
    case "image-not-found":
      return `the cache has no image \`${val}\` that this policy may see`;
    case "image-in-use":
      return `\`${val.reference}\` is in use`;
    case "denied":
      return val.message;
    case "invalid-reference":
      return `\`${val[0]}\`: ${val[1]}`;
    default:
      return val;
  }
}
