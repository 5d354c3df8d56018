/* What the operator configures. */
#ifndef CONFIG_H
#define CONFIG_H

#include "age.h"

typedef struct {
    /* How many images of each repository are kept. */
    uint32_t keep;
    /* What was used within this time is kept, too, where it is given. */
    bool has_used_within;
    age used_within;
} config;

extern const char config_schema[];

/* Reads a config. False where it does not conform: then `error` says why. */
bool config_parse(slice document, config *result, text *error);

#endif
