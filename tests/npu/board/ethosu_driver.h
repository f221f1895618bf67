/* Stands in for Arm's ethos-u-core-driver, which no package registry has: what main.cc uses of it.
 * Source: `include/ethosu_driver.h` of driver 1.0.0 (commit 0356707), and before 1.0 (9622608). */
#ifndef ETHOSU_DRIVER_H
#define ETHOSU_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef ETHOSU_DRIVER_VERSION_MAJOR
#define ETHOSU_DRIVER_VERSION_MAJOR 1
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct ethosu_driver {
  uint64_t fast_memory;
  size_t fast_memory_size;
};

void ethosu_irq_handler(struct ethosu_driver *drv);
#if ETHOSU_DRIVER_VERSION_MAJOR >= 1
void ethosu_flush_dcache(const uint64_t *base_addr, const size_t *base_addr_size, int num_base_addr);
void ethosu_invalidate_dcache(const uint64_t *base_addr, const size_t *base_addr_size,
                              int num_base_addr);
#else
void ethosu_flush_dcache(uint32_t *p, size_t bytes);
void ethosu_invalidate_dcache(uint32_t *p, size_t bytes);
#endif
int ethosu_init(struct ethosu_driver *drv, void *const base_address, const void *fast_memory,
                const size_t fast_memory_size, uint32_t secure_enable, uint32_t privilege_enable);

#ifdef __cplusplus
}
#endif

#endif
