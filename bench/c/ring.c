/*
 * A ring buffer's consumer in plain C, for comparison: what ring_buffer__consume() of libbpf does.
 *
 *   ring BYTES
 *
 * Descriptor 3 is the map, of so many bytes. For each line on stdin it takes all records, and answers
 * with their number, the nanoseconds of processor it took, and the sum of their first words.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BUSY (1u << 31)
#define DISCARD (1u << 30)
#define HEADER 8

static long long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(int argc, char **argv)
{
	uint64_t size = argc > 1 ? strtoull(argv[1], NULL, 10) : 0, page = sysconf(_SC_PAGESIZE);
	uint64_t *consumer = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, 3, 0);
	char *rest = mmap(NULL, page + 2 * size, PROT_READ, MAP_SHARED, 3, page);
	char line[64];

	if (consumer == MAP_FAILED || rest == MAP_FAILED) {
		perror("ring: mmap");
		return 1;
	}
	while (fgets(line, sizeof(line), stdin)) {
		long long start = now_ns();
		uint64_t at = __atomic_load_n(consumer, __ATOMIC_ACQUIRE), count = 0, sum = 0;

		while (at < __atomic_load_n((uint64_t *)rest, __ATOMIC_ACQUIRE)) {
			const char *record = rest + page + (at & (size - 1));
			uint32_t header = __atomic_load_n((const uint32_t *)record, __ATOMIC_ACQUIRE);

			if (header & BUSY)
				break;
			if (!(header & DISCARD)) {
				sum += *(const uint32_t *)(record + HEADER);
				count++;
			}
			at += ((header & ~(BUSY | DISCARD)) + HEADER + 7) & ~7u;
			__atomic_store_n(consumer, at, __ATOMIC_RELEASE);
		}
		printf("%llu %lld %llu\n", (unsigned long long)count, now_ns() - start, (unsigned long long)sum);
		fflush(stdout);
	}
	return 0;
}
