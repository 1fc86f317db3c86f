//! What is left of a connection after both sides have closed: one cache line.
//!
//! A connection that ended with our FIN first stays known for a while, so that a repeated FIN of
//! the peer gets its ACK again and old segments do no harm to a new connection with the same
//! addresses and ports (RFC 9293 section 3.6.1). For that no socket and no buffers are needed.
//!
//! ```text
//!   oldest <-> ... <-> newest      all wait equally long, so the order of arrival is the order
//!                                  of expiry; when the table is full the oldest gives way
//! ```

use smoltcp::wire::TcpSeqNumber;

use crate::flow::FlowKey;
use crate::front::{TcpFlags, TcpView};

/// No record.
const NIL: u32 = u32::MAX;

/// Both ends of the sequence space and where the ACK goes.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// High and low halves: an `u128` would blow the record up by its alignment.
    local_ip: [u64; 2],
    remote_ip: [u64; 2],
    /// Tick at which the record is forgotten.
    expires: u64,
    snd_nxt: u32,
    rcv_nxt: u32,
    /// Towards the oldest; links a free record to the next free one.
    older: u32,
    newer: u32,
    local_port: u16,
    remote_port: u16,
    window: u16,
}

const _: () = assert!(size_of::<Record>() == 64);

/// The last thing we said on a connection: what a repeated FIN is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct LastAck {
    /// Our next sequence number.
    pub(crate) snd_nxt: u32,
    /// The peer's next sequence number.
    pub(crate) rcv_nxt: u32,
    /// What has arrived since and is not acknowledged: so far beyond `rcv_nxt` we expect more.
    pub(crate) unsaid: u32,
    /// Window as it stood in the header.
    pub(crate) window: u16,
    /// The peer's own window was closed when it last spoke.
    pub(crate) is_peer_full: bool,
}

/// What to do with a segment of a flow in TIME-WAIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Ignore,
    /// Say the last ACK again.
    Answer(LastAck),
    /// The peer begins a new connection, which has to begin beyond the numbers of the old one:
    /// forget the record and treat the SYN as one.
    Reopen {
        /// Our next number in the old connection.
        old_end: u32,
    },
}

/// The flows in TIME-WAIT.
#[derive(Debug)]
pub(crate) struct TimeWaitTable {
    records: Vec<Record>,
    records_max: usize,
    len: usize,
    free: u32,
    oldest: u32,
    newest: u32,
}

impl TimeWaitTable {
    /// A table for at most `records_max` flows, at least one.
    pub(crate) fn new(records_max: usize) -> Self {
        Self {
            records: Vec::new(),
            records_max: records_max.max(1),
            len: 0,
            free: NIL,
            oldest: NIL,
            newest: NIL,
        }
    }

    /// How many flows are in TIME-WAIT.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The oldest record if it has to give way to a new one.
    pub(crate) fn to_evict(&self) -> Option<u32> {
        (self.len == self.records_max).then_some(self.oldest)
    }

    /// The oldest record if its time is over at tick `now`.
    pub(crate) fn expired(&self, now: u64) -> Option<u32> {
        let oldest = self.records.get(self.oldest as usize)?;
        (oldest.expires <= now).then_some(self.oldest)
    }

    /// When the oldest record expires.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.records.get(self.oldest as usize).map(|oldest| oldest.expires)
    }

    /// Keeps a flow until tick `expires`, which is not before that of any other.
    ///
    /// # Panics
    /// If the table is full, see [`TimeWaitTable::to_evict`].
    pub(crate) fn add(&mut self, key: &FlowKey, last: LastAck, expires: u64) -> u32 {
        assert!(self.len < self.records_max, "the oldest record gave way");
        let record = Record {
            local_ip: halves(key.local_ip),
            remote_ip: halves(key.remote_ip),
            expires,
            snd_nxt: last.snd_nxt,
            rcv_nxt: last.rcv_nxt,
            older: NIL,
            newer: NIL,
            local_port: key.local_port,
            remote_port: key.remote_port,
            window: last.window,
        };
        let slot = self.free;
        let slot = if let Some(free) = self.records.get_mut(slot as usize) {
            self.free = free.older;
            *free = record;
            slot
        } else {
            self.records.push(record);
            self.records.len() as u32 - 1
        };
        self.len += 1;
        self.link_newest(slot);
        slot
    }

    /// The flow of a record.
    pub(crate) fn key(&self, slot: u32) -> FlowKey {
        let record = &self.records[slot as usize];
        FlowKey {
            local_ip: whole(record.local_ip),
            remote_ip: whole(record.remote_ip),
            local_port: record.local_port,
            remote_port: record.remote_port,
        }
    }

    /// Forgets a record.
    pub(crate) fn remove(&mut self, slot: u32) {
        self.unlink(slot);
        self.records[slot as usize].older = self.free;
        self.free = slot;
        self.len -= 1;
    }

    /// Judges a segment of the flow. A FIN starts the time anew, until tick `expires`.
    ///
    /// Resets are ignored, else an old duplicate could end TIME-WAIT (RFC 1337). A new SYN has to
    /// be beyond everything the old connection received (RFC 1122 section 4.2.2.13). Only what
    /// takes sequence space is answered, so two ends never answer each other's answers.
    pub(crate) fn judge(&mut self, slot: u32, segment: &TcpView, expires: u64) -> Verdict {
        let record = &self.records[slot as usize];
        let flags = segment.flags;
        let is_syn = flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::ACK);
        let is_newer = sequence(segment.seq) > sequence(record.rcv_nxt);
        if flags.contains(TcpFlags::RST) {
            return Verdict::Ignore;
        }
        if is_syn && is_newer {
            return Verdict::Reopen { old_end: record.snd_nxt };
        }
        if segment.payload_len == 0 && !flags.intersects(TcpFlags::SYN | TcpFlags::FIN) {
            return Verdict::Ignore;
        }
        let last = LastAck {
            snd_nxt: record.snd_nxt,
            rcv_nxt: record.rcv_nxt,
            window: record.window,
            ..LastAck::default()
        };
        if flags.contains(TcpFlags::FIN) {
            self.unlink(slot);
            self.records[slot as usize].expires = expires;
            self.link_newest(slot);
        }
        Verdict::Answer(last)
    }

    fn link_newest(&mut self, slot: u32) {
        let older = std::mem::replace(&mut self.newest, slot);
        let record = &mut self.records[slot as usize];
        record.older = older;
        record.newer = NIL;
        match self.records.get_mut(older as usize) {
            Some(older) => older.newer = slot,
            None => self.oldest = slot,
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Record { older, newer, .. } = self.records[slot as usize];
        match self.records.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.records.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
    }
}

fn halves(ip: u128) -> [u64; 2] {
    [(ip >> 64) as u64, ip as u64]
}

fn whole([high, low]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// Sequence numbers compare around the circle.
fn sequence(number: u32) -> TcpSeqNumber {
    TcpSeqNumber(number as i32)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn key(number: u16) -> FlowKey {
        let local = SocketAddr::from(([10, 0, 0, 1], 6800));
        FlowKey::new(local, SocketAddr::from(([10, 0, 0, 2], number)))
    }

    fn segment(flags: TcpFlags, seq: u32, payload_len: usize) -> TcpView {
        TcpView {
            key: key(1),
            ip_start: 14,
            ip_len: 40 + payload_len,
            tcp_start: 34,
            payload_start: 54,
            payload_len,
            seq,
            ack: 0,
            flags,
            window: 0,
        }
    }

    const LAST: LastAck =
        LastAck { snd_nxt: 7, rcv_nxt: u32::MAX - 1, unsaid: 0, window: 99, is_peer_full: false };

    #[test]
    fn records_leave_in_the_order_they_expire() {
        let mut table = TimeWaitTable::new(8);
        let slots: Vec<_> = (0..4).map(|n| table.add(&key(n), LAST, 100 + u64::from(n))).collect();
        // The first one's peer repeats its FIN, the third one's opens anew.
        let fin = segment(TcpFlags::FIN | TcpFlags::ACK, LAST.rcv_nxt - 1, 0);
        assert_eq!(table.judge(slots[0], &fin, 200), Verdict::Answer(LAST));
        table.remove(slots[2]);
        let mut left = Vec::new();
        for now in 0..300 {
            while let Some(slot) = table.expired(now) {
                left.push((now, table.key(slot)));
                table.remove(slot);
            }
        }
        assert_eq!(left, [(101, key(1)), (103, key(3)), (200, key(0))]);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn the_oldest_gives_way_when_the_table_is_full() {
        let mut table = TimeWaitTable::new(2);
        table.add(&key(1), LAST, 100);
        assert_eq!(table.to_evict(), None);
        table.add(&key(2), LAST, 101);
        let oldest = table.to_evict().unwrap();
        assert_eq!(table.key(oldest), key(1));
        table.remove(oldest);
        let slot = table.add(&key(3), LAST, 102);
        assert_eq!(table.key(slot), key(3));
        assert_eq!(table.records.len(), 2, "the record was used again");
    }

    #[test]
    fn only_a_syn_beyond_the_old_connection_opens_a_new_one() {
        let mut table = TimeWaitTable::new(2);
        let slot = table.add(&key(1), LAST, 100);
        let mut judge = |flags, seq, len| table.judge(slot, &segment(flags, seq, len), 100);
        // The sequence space wraps between the old connection's end and 5.
        assert_eq!(judge(TcpFlags::SYN, 5, 0), Verdict::Reopen { old_end: LAST.snd_nxt });
        assert_eq!(judge(TcpFlags::SYN, LAST.rcv_nxt, 0), Verdict::Answer(LAST));
        assert_eq!(judge(TcpFlags::SYN, LAST.rcv_nxt - 1000, 0), Verdict::Answer(LAST));
        assert_eq!(judge(TcpFlags::SYN | TcpFlags::ACK, 5, 0), Verdict::Answer(LAST));
        assert_eq!(judge(TcpFlags::RST, 5, 0), Verdict::Ignore);
        assert_eq!(judge(TcpFlags::ACK, 5, 0), Verdict::Ignore);
        assert_eq!(judge(TcpFlags::ACK, 5, 1), Verdict::Answer(LAST));
    }
}
