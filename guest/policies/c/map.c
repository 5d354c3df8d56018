#include "map.h"

map map_for(size_t keys) {
    /* A power of two, and at most half full, so that a search ends soon. */
    size_t slots = 16;
    while (slots / 2 < keys) slots *= 2;
    return (map){allocate(slots, sizeof(map_slot)), slots - 1};
}

/* FNV-1a. */
static size_t hash(slice key) {
    uint32_t sum = 2166136261u;
    for (size_t at = 0; at < key.len; at++) sum = (sum ^ key.ptr[at]) * 16777619u;
    return sum;
}

uint32_t *map_entry(map *in, slice key) {
    size_t at = hash(key) & in->mask;
    while (in->slots[at].taken && slice_compare(in->slots[at].key, key) != 0) at = (at + 1) & in->mask;
    in->slots[at].key = key;
    in->slots[at].taken = true;
    return &in->slots[at].count;
}
