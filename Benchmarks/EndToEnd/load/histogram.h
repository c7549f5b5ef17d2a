// Latencies in nanoseconds, counted in buckets that are at most 1.6 % wide.
//
//     value       0 … 63      64 … 127    128 … 255    256 … 511   …
//     bucket      one each    one each    every 2      every 4     …     64 for each power of two
//
// Recording is an index and an addition. Sorting samples instead would need gigabytes for a run at
// a million requests a second.

#pragma once

#include <stdint.h>
#include <string.h>

enum { SUB_BUCKET_BITS = 6, SUB_BUCKETS = 1 << SUB_BUCKET_BITS, POWERS = 64 - SUB_BUCKET_BITS };

struct histogram {
    uint64_t counts[(POWERS + 1) * SUB_BUCKETS];
    uint64_t total;
    uint64_t greatest;
};

static inline void histogram_reset(struct histogram *self) { memset(self, 0, sizeof *self); }

static inline unsigned histogram_bucket(uint64_t value) {
    if (value < SUB_BUCKETS) return (unsigned)value;
    unsigned power = 63 - (unsigned)__builtin_clzll(value) - SUB_BUCKET_BITS;
    return (power + 1) * SUB_BUCKETS + (unsigned)((value >> power) - SUB_BUCKETS);
}

/// The greatest value that falls into a bucket, so that a percentile is never flattered.
static inline uint64_t histogram_upper_bound(unsigned bucket) {
    if (bucket < SUB_BUCKETS) return bucket;
    unsigned power = bucket / SUB_BUCKETS - 1;
    return (((uint64_t)(bucket % SUB_BUCKETS) + SUB_BUCKETS + 1) << power) - 1;
}

static inline void histogram_record(struct histogram *self, uint64_t value, uint64_t times) {
    self->counts[histogram_bucket(value)] += times;
    self->total += times;
    if (value > self->greatest) self->greatest = value;
}

/// The least latency that `share` (0 to 1) of the requests did not exceed; 0 if there were none.
static inline uint64_t histogram_percentile(const struct histogram *self, double share) {
    uint64_t wanted = (uint64_t)(share * (double)self->total + 0.999999);
    if (wanted == 0) wanted = 1;
    uint64_t seen = 0;
    for (unsigned bucket = 0; bucket < (POWERS + 1) * SUB_BUCKETS; bucket++) {
        seen += self->counts[bucket];
        if (seen >= wanted) {
            uint64_t bound = histogram_upper_bound(bucket);
            return bound < self->greatest ? bound : self->greatest;
        }
    }
    return 0;
}
