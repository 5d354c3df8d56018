/* A reader of one JSON object, which is what a config is (RFC 8259).
 *
 * Members are read one after another; a value that is an array or an object is checked and skipped. What is read lies
 * in the text that was given, but for strings with escapes, which get memory of their own.
 */
#ifndef JSON_H
#define JSON_H

#include "text.h"

typedef enum {
    JSON_NULL,
    JSON_BOOLEAN,
    JSON_INTEGER,
    JSON_FLOAT,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT,
} json_kind;

typedef struct {
    json_kind kind;
    /* As it is written, quotes of a string included. */
    slice literal;
    /* Of a string: what it says. */
    slice string;
} json_value;

typedef struct {
    const uint8_t *at;
    const uint8_t *end;
    bool begun;
    bool broken;
} json_reader;

json_reader json_open(slice document);

/* Reads the next member. False at the end, and where the text is not a JSON object: then `broken` is set. */
bool json_next(json_reader *reader, slice *key, json_value *value);

/* The value of an integer; false for one that does not fit, and for what is no integer. */
bool json_integer(const json_value *value, int64_t *number);

#endif
