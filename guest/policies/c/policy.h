/* What the policy says of itself. */
#ifndef POLICY_H
#define POLICY_H

#define POLICY_NAME "keep-recent-c"
#define POLICY_VERSION "0.1.0"
#define POLICY_SUMMARY "Keeps the newest images of each repository and what was used of late, and removes the rest."

#endif
