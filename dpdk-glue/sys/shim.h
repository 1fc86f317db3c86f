/*
 * What Rust cannot call or see in DPDK: inline functions, mbuf fields, 64-bit flag macros.
 *
 * The burst functions work on whole bursts, so a frame costs no call of its own. No function here
 * keeps a pointer beyond its return, except where an mbuf changes hands.
 */
#ifndef DPDK_SHIM_H
#define DPDK_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include <rte_bus_vdev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

#if RTE_VERSION < RTE_VERSION_NUM(22, 11, 0, 0)
#error "DPDK is too old: need >= 22.11"
#endif

/* The bytes of a single-segment mbuf. Returned in two registers. */
struct shim_bytes {
	uint8_t *start;
	uint64_t len;
};

/* What became of received frames that spanned several mbufs. */
struct shim_chains {
	uint64_t linearised;
	uint64_t dropped;
};

/* Whether the device checked the IP and TCP checksums. */
enum shim_checksum {
	SHIM_CHECKSUM_UNKNOWN,
	SHIM_CHECKSUM_GOOD,
	SHIM_CHECKSUM_BAD,
};

/* ---- bursts: at most n mbufs, single-segment ones only ---- */

uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n,
		       struct shim_chains *chains);
uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);

/* ---- mbufs ---- */

/* An mbuf with len bytes of data, or NULL: the pool is empty or len does not fit. */
struct rte_mbuf *shim_mbuf_alloc(struct rte_mempool *pool, uint16_t len);
/* n of them or none: returns n or 0. */
uint16_t shim_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint16_t n,
			      uint16_t len);
/* Gives mbufs back to their pools, from any thread. */
void shim_mbuf_free(struct rte_mbuf **mbufs, uint16_t n);
struct shim_bytes shim_mbuf_bytes(const struct rte_mbuf *mbuf);
/* Cuts to len bytes, which is at most the present length. */
void shim_mbuf_trim(struct rte_mbuf *mbuf, uint16_t len);
/* Makes the frame longer by len bytes; 0: no room, nothing changed. */
int shim_mbuf_append(struct rte_mbuf *mbuf, uint16_t len);
enum shim_checksum shim_mbuf_checksum(const struct rte_mbuf *mbuf);

/* Threads without an lcore id that are inside shim_mbuf_free now. */
uint32_t shim_foreign_frees(void);

/* ---- control ---- */

/* 1 up, 0 down, negative: error. Does not wait. */
int shim_link_is_up(uint16_t port);
/* The calling thread's rte_errno. */
int shim_errno(void);

/* Receives one piece of DPDK's log; level is RTE_LOG_*, text is not terminated. */
typedef void (*shim_log_sink)(uint32_t level, const char *text, size_t len);
/* Sends DPDK's log to sink from now on; 0, or -1 with errno set. To be called once. */
int shim_log_capture(shim_log_sink sink);

/* ---- constants whose macros libclang does not see ---- */

extern const uint32_t shim_version; /* RTE_VERSION of the headers */
extern const uint64_t shim_rx_offload_checksum;
extern const uint64_t shim_rss_tcp;
extern const int shim_socket_any;

#endif
