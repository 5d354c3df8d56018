// The cache as the policy sees it.

import { remove, select } from "larder:image/images@0.1.0";
import { explain } from "larder:image/report@0.1.0";
import { listUsage } from "larder:image/usage@0.1.0";

import { attempt, call, CallError, sentence } from "./error.js";

// How many images are read at a time: enough that calls are few.
const PAGE = 1024;

// Every visible image with its usage, newest created first.
export function images() {
  const usages = new Map(call(listUsage).map((usage) => [usage.reference, usage]));
  const all = [];
  let after = null;
  for (;;) {
    const page = call(() => select({ order: "created-newest-first", after, limit: PAGE }));
    if (page.length === 0) return all;
    for (const handle of page) {
      const usage = usages.get(handle.reference);
      if (!usages.delete(handle.reference)) {
        throw new CallError(`the host lists \`${handle.reference}\` and has no usage for it`);
      }
      all.push({ handle, usage });
    }
    after = page[page.length - 1].reference;
  }
}

// Stages the removal of an image and explains it.
//
// What is in use after all, or is not this run's to remove, is kept, and that is explained. Only what makes the whole
// run pointless is thrown, as is going past a cap of the grant.
export function removeBecause(reference, reason) {
  const { error } = attempt(() => remove(reference, false));
  if (error == null) {
    explain(reference, reason);
    return;
  }
  const isBudget = error.tag === "denied" && error.val.right === "budget";
  if (isBudget || !(error.tag === "denied" || error.tag === "image-in-use")) throw new CallError(sentence(error));
  explain(reference, `${reason}; kept because ${sentence(error)}`);
}
