#include "age.h"

#define UNITS 5

/* The longest first. Weeks are read, never written. */
static const struct {
    char name;
    uint64_t seconds;
} units[UNITS] = {{'w', 7 * 86400}, {'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};

age_result age_parse(slice written, age *result) {
    size_t at = 0, next = 0;
    uint64_t sum = 0;
    do {
        uint64_t count = 0;
        bool overflows = false;
        size_t start = at;
        for (; at < written.len && written.ptr[at] >= '0' && written.ptr[at] <= '9'; at++) {
            uint64_t digit = written.ptr[at] - '0';
            overflows |= __builtin_mul_overflow(count, 10, &count) || __builtin_add_overflow(count, digit, &count);
        }
        if (at == start || at == written.len) return AGE_MALFORMED;
        while (next < UNITS && (uint8_t)units[next].name != written.ptr[at]) next++;
        if (next == UNITS) return AGE_MALFORMED;
        overflows |= __builtin_mul_overflow(count, units[next].seconds, &count);
        if (overflows || __builtin_add_overflow(sum, count, &sum)) return AGE_TOO_LONG;
        at++;
        next++;
    } while (at < written.len);
    *result = (age){.seconds = sum};
    return AGE_READ;
}

void age_write(text *to, age length) {
    uint64_t rest = length.seconds;
    int written = 0;
    for (int unit = 1; unit < UNITS && written < 2; unit++) {
        uint64_t count = rest / units[unit].seconds;
        rest %= units[unit].seconds;
        if (count == 0) continue;
        text_add_number(to, count);
        text_add_byte(to, (uint8_t)units[unit].name);
        written++;
    }
    if (written == 0) text_add(to, "0s");
}

bool age_of(instant at, instant now, age *result) {
    if (instant_compare(at, now) > 0) return false;
    /* The difference of two instants fits into 64 bits without a sign, which is how it is computed. */
    uint64_t seconds = (uint64_t)now.seconds - (uint64_t)at.seconds;
    bool borrow = now.nanoseconds < at.nanoseconds;
    result->seconds = seconds - borrow;
    result->nanoseconds = now.nanoseconds + (borrow ? 1000000000u : 0) - at.nanoseconds;
    return true;
}

int instant_compare(instant a, instant b) {
    if (a.seconds != b.seconds) return a.seconds < b.seconds ? -1 : 1;
    return a.nanoseconds < b.nanoseconds ? -1 : a.nanoseconds > b.nanoseconds;
}
