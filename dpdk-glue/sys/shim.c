#include "shim.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "layout.h"

const uint32_t shim_version = RTE_VERSION;
const uint64_t shim_rx_offload_checksum =
	RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
const uint64_t shim_rss_tcp = RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV6_TCP;
const int shim_socket_any = SOCKET_ID_ANY;

/* Frees of threads that DPDK does not know; see shim_foreign_frees. */
static _Atomic uint32_t foreign_frees;

uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n,
		       struct shim_chains *chains)
{
	uint16_t received = rte_eth_rx_burst(port, queue, mbufs, n);
	uint16_t kept = 0;

	for (uint16_t i = 0; i < received; i++) {
		struct rte_mbuf *mbuf = mbufs[i];

		if (unlikely(mbuf->nb_segs > 1)) {
			/* rte_pktmbuf_linearize copies the tail into the first mbuf's room. */
			if (rte_pktmbuf_linearize(mbuf) != 0) {
				chains->dropped++;
				rte_pktmbuf_free(mbuf);
				continue;
			}
			chains->linearised++;
		}
		mbufs[kept++] = mbuf;
	}
	return kept;
}

uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, mbufs, n);
}

static inline void set_len(struct rte_mbuf *mbuf, uint16_t len)
{
	mbuf->data_len = len;
	mbuf->pkt_len = len;
}

static inline int fits(struct rte_mempool *pool, uint16_t len)
{
	return len <= rte_pktmbuf_data_room_size(pool) - RTE_PKTMBUF_HEADROOM;
}

struct rte_mbuf *shim_mbuf_alloc(struct rte_mempool *pool, uint16_t len)
{
	struct rte_mbuf *mbuf;

	if (unlikely(!fits(pool, len)))
		return NULL;
	mbuf = rte_pktmbuf_alloc(pool);
	if (likely(mbuf != NULL))
		set_len(mbuf, len);
	return mbuf;
}

uint16_t shim_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint16_t n,
			      uint16_t len)
{
	if (unlikely(!fits(pool, len)) || rte_pktmbuf_alloc_bulk(pool, mbufs, n) != 0)
		return 0;
	for (uint16_t i = 0; i < n; i++)
		set_len(mbufs[i], len);
	return n;
}

/*
 * EAL must not be cleaned up while a thread is still inside a free, even if the mbuf it gives back
 * is counted as returned already. Threads with an lcore id keep EAL alive by being registered; the
 * others are counted.
 */
void shim_mbuf_free(struct rte_mbuf **mbufs, uint16_t n)
{
	if (likely(rte_lcore_id() != LCORE_ID_ANY)) {
		rte_pktmbuf_free_bulk(mbufs, n);
	} else {
		atomic_fetch_add(&foreign_frees, 1);
		rte_pktmbuf_free_bulk(mbufs, n);
		atomic_fetch_sub(&foreign_frees, 1);
	}
}

uint32_t shim_foreign_frees(void)
{
	/* Pairs with the increment: who has seen a pool's count with the mbuf back sees it too. */
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load(&foreign_frees);
}

struct shim_bytes shim_mbuf_bytes(const struct rte_mbuf *mbuf)
{
	struct shim_bytes bytes = { rte_pktmbuf_mtod(mbuf, uint8_t *), rte_pktmbuf_data_len(mbuf) };

	return bytes;
}

void shim_mbuf_trim(struct rte_mbuf *mbuf, uint16_t len)
{
	set_len(mbuf, len);
}

int shim_mbuf_append(struct rte_mbuf *mbuf, uint16_t len)
{
	return rte_pktmbuf_append(mbuf, len) != NULL;
}

/* "None" (the checksum is not in the frame, but somebody vouches for the bytes) counts as unknown:
 * only software devices say it, and the word of a peer process is no proof. */
enum shim_checksum shim_mbuf_checksum(const struct rte_mbuf *mbuf)
{
	uint64_t ip = mbuf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK;
	uint64_t l4 = mbuf->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;

	if (ip == RTE_MBUF_F_RX_IP_CKSUM_BAD || l4 == RTE_MBUF_F_RX_L4_CKSUM_BAD)
		return SHIM_CHECKSUM_BAD;
	if (l4 != RTE_MBUF_F_RX_L4_CKSUM_GOOD)
		return SHIM_CHECKSUM_UNKNOWN;
	/* IPv6 has no header checksum to be good. */
	if (ip == RTE_MBUF_F_RX_IP_CKSUM_GOOD || RTE_ETH_IS_IPV6_HDR(mbuf->packet_type))
		return SHIM_CHECKSUM_GOOD;
	return SHIM_CHECKSUM_UNKNOWN;
}

int shim_link_is_up(uint16_t port)
{
	struct rte_eth_link link;
	int error;

	memset(&link, 0, sizeof(link));
	error = rte_eth_link_get_nowait(port, &link);
	return error != 0 ? error : link.link_status == RTE_ETH_LINK_UP;
}

int shim_errno(void)
{
	return rte_errno;
}

static shim_log_sink log_sink;

/* DPDK flushes after every message, so a write here is one message, and its level is at hand. */
static ssize_t log_write(void *cookie, const char *text, size_t len)
{
	(void)cookie;
	log_sink((uint32_t)rte_log_cur_msg_loglevel(), text, len);
	return (ssize_t)len;
}

int shim_log_capture(shim_log_sink sink)
{
	static const cookie_io_functions_t functions = { .write = log_write };
	FILE *stream = fopencookie(NULL, "w", functions);

	if (stream == NULL)
		return -1;
	log_sink = sink;
	return rte_openlog_stream(stream);
}
