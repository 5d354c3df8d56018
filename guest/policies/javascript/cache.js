// The cache as the policy sees it.

import { remove, select } from "larder:image/images@0.2.0";
import { explain } from "larder:image/report@0.2.0";
import { getUsage } from "larder:image/usage@0.2.0";

import { attempt, call, CallError, obstacle, sentence } from "./error.js";

// The number of images that are read at a time: enough that calls are few.
const PAGE = 1024;

// Reads every visible image with its usage, newest created first.
export function images() {
  const all = [];
  let after = null;
  for (;;) {
    const page = call(() => select({ order: "created-newest-first", after, limit: PAGE }));
    if (page.length === 0) return all;
    const references = page.map((handle) => handle.reference);
    // Answers come in the order of the references.
    call(() => getUsage(references)).forEach((usage, index) => all.push({ handle: page[index], usage }));
    after = references[references.length - 1];
  }
}

// Stages the removal of an image and explains it.
//
// If the image is in use after all, or if the run lacks the right to remove it, the image is kept, which is explained,
// too. Any other failure is thrown, as is one that refuses the whole plan.
export function removeBecause(reference, reason) {
  const { error } = attempt(() => remove(reference, false));
  if (error == null) {
    explain(reference, reason);
    return;
  }
  const why = obstacle(error);
  if (why == null) throw new CallError(sentence(error));
  explain(reference, `${reason}; kept because ${why}`);
}
