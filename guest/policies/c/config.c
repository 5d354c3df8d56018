#include "config.h"

#include "json.h"
#include "policy.h"

const char config_schema[] =
    "{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\"additionalProperties\":false,"
    "\"description\":\"What the operator configures.\",\"properties\":{"
    "\"keep\":{\"default\":3,\"description\":\"How many images of each repository are kept, those that arrived last.\","
    "\"format\":\"uint32\",\"minimum\":0,\"type\":\"integer\"},"
    "\"used-within\":{\"default\":null,\"description\":\"What was used or arrived within this time is kept, too.\","
    "\"examples\":[\"30d\",\"12h\",\"1w2d\"],\"pattern\":\"^([0-9]+[wdhms])+$\","
    "\"type\":[\"string\",\"null\"]}},\"title\":\"Config\",\"type\":\"object\"}";

static void begin_error(text *error) {
    text_add(error, "config of " POLICY_NAME ": ");
}

/* A string in quotes, with what cannot be seen escaped. */
static void add_quoted(text *to, slice string) {
    text_add(to, "\"");
    for (size_t at = 0; at < string.len; at++) {
        uint8_t byte = string.ptr[at];
        switch (byte) {
        case '"': text_add(to, "\\\""); break;
        case '\\': text_add(to, "\\\\"); break;
        case '\n': text_add(to, "\\n"); break;
        case '\r': text_add(to, "\\r"); break;
        case '\t': text_add(to, "\\t"); break;
        case '\0': text_add(to, "\\0"); break;
        default:
            if (byte < 0x20 || byte == 0x7F) {
                text_add(to, "\\u{");
                if (byte >= 0x10) text_add_byte(to, (uint8_t)('0' + (byte >> 4)));
                text_add_byte(to, (uint8_t)"0123456789abcdef"[byte & 15]);
                text_add(to, "}");
            } else {
                text_add_byte(to, byte);
            }
        }
    }
    text_add(to, "\"");
}

/* What a value is, in words. */
static void add_value(text *to, const json_value *value) {
    switch (value->kind) {
    case JSON_NULL: text_add(to, "null"); break;
    case JSON_BOOLEAN: text_add(to, "boolean `"); break;
    case JSON_INTEGER: text_add(to, "integer `"); break;
    case JSON_FLOAT: text_add(to, "floating point `"); break;
    case JSON_STRING: text_add(to, "string "), add_quoted(to, value->string); break;
    case JSON_ARRAY: text_add(to, "sequence"); break;
    case JSON_OBJECT: text_add(to, "map"); break;
    }
    if (value->kind == JSON_BOOLEAN || value->kind == JSON_INTEGER || value->kind == JSON_FLOAT) {
        text_add_slice(to, value->literal);
        text_add(to, "`");
    }
}

static bool refuse(text *error, const char *key, const char *what, const json_value *value, const char *expected) {
    begin_error(error);
    text_add(error, key);
    text_add(error, what);
    add_value(error, value);
    text_add(error, ", expected ");
    text_add(error, expected);
    return false;
}

/* The first characters of a text, which stands for all of it in a message. */
static slice shortened(slice string) {
    size_t characters = 0, at = 0;
    for (; at < string.len; at++) {
        bool begins = (string.ptr[at] & 0xC0) != 0x80;
        if (begins && ++characters > 40) break;
    }
    return (slice){string.ptr, at};
}

static bool read_keep(const json_value *value, config *result, text *error) {
    int64_t number;
    if (value->kind != JSON_INTEGER) return refuse(error, "`keep`", ": invalid type: ", value, "u32");
    if (!json_integer(value, &number) || number < 0 || number > UINT32_MAX) {
        return refuse(error, "`keep`", ": invalid value: ", value, "u32");
    }
    result->keep = (uint32_t)number;
    return true;
}

static bool read_used_within(const json_value *value, config *result, text *error) {
    if (value->kind == JSON_NULL) return true;
    if (value->kind != JSON_STRING) return refuse(error, "`used-within`", ": invalid type: ", value, "a string");
    age_result read = age_parse(value->string, &result->used_within);
    result->has_used_within = read == AGE_READ;
    if (read == AGE_READ) return true;
    begin_error(error);
    text_add(error, "`used-within`: `");
    text_add_slice(error, shortened(value->string));
    text_add(error, read == AGE_TOO_LONG
                        ? "` is too long a time"
                        : "` is not a length of time: expected a number and a unit, such as `30d`, `12h`, `90m` or `1w2d`");
    return false;
}

bool config_parse(slice document, config *result, text *error) {
    json_reader reader = json_open(document);
    json_value value, keep = {0}, used_within = {0};
    bool has_keep = false, has_used_within = false, has_unknown = false;
    slice key, unknown = {0};
    while (json_next(&reader, &key, &value)) {
        if (slice_is(key, "keep")) {
            has_keep = true, keep = value;
        } else if (slice_is(key, "used-within")) {
            has_used_within = true, used_within = value;
        } else if (!has_unknown || slice_compare(key, unknown) < 0) {
            has_unknown = true, unknown = key;
        }
    }
    if (reader.broken) {
        begin_error(error);
        text_add(error, "expected a JSON object");
        return false;
    }
    if (has_unknown) {
        begin_error(error);
        text_add(error, "unknown key `");
        text_add_slice(error, unknown);
        text_add(error, "`: the keys are `keep` and `used-within`");
        return false;
    }
    *result = (config){.keep = 3};
    return (!has_keep || read_keep(&keep, result, error)) &&
           (!has_used_within || read_used_within(&used_within, result, error));
}
