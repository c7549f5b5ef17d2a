// Counts what a thread allocates, for tests that assert a path allocates nothing.
//
// A test that links this target has malloc and its kin replaced, in the whole process, by functions
// that count and pass on to glibc's own. Allocated bytes (mallinfo2) would not do: what is freed
// again at once, which is what a hot path does, leaves no trace there.

#pragma once

/// Calls of malloc, calloc, realloc, aligned_alloc and posix_memalign by this thread so far, or -1
/// if they are not counted, because a sanitizer replaces them itself.
long allocation_count(void);
