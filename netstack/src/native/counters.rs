//! What a native worker counts.

/// Events since the start. What the front drops is counted by the front.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) turns: u64,
    /// Turns without a frame, a parcel, something to send or something to tell.
    pub(super) idle_turns: u64,
    /// Frames of the last burst that had any.
    pub(super) rx_last_burst: u64,
    pub(super) rx_frames: u64,
    pub(super) rx_bytes: u64,
    pub(super) connections_opened: u64,
    pub(super) connections_accepted: u64,
    pub(super) connections_closed: u64,
    pub(super) connections_refused: u64,
    pub(super) connections_reset: u64,
    pub(super) connections_timed_out: u64,
    pub(super) connections_unreachable: u64,
    pub(super) strangers_refused: u64,
    pub(super) early_segment_drops: u64,
    pub(super) inexact_reset_drops: u64,
    pub(super) late_syn_drops: u64,
    pub(super) bad_ack_drops: u64,
    pub(super) challenge_acks_sent: u64,
    pub(super) challenge_acks_withheld: u64,
    pub(super) syn_backlog_drops: u64,
    pub(super) syn_limit_drops: u64,
    pub(super) syn_cookies_sent: u64,
    pub(super) syn_cookies_returned: u64,
    pub(super) accept_queue_drops: u64,
    pub(super) half_open_reaped: u64,
    pub(super) linger_resets: u64,
    pub(super) time_wait_evicted: u64,
    pub(super) time_wait_reused: u64,
    pub(super) frames_handed_over: u64,
    pub(super) frames_taken_over: u64,
    pub(super) handover_full_drops: u64,
    pub(super) link_ups: u64,
    pub(super) link_downs: u64,
    pub(super) retransmission_timeouts: u64,
    pub(super) fast_retransmits: u64,
    /// Last segments sent again because no answer came.
    pub(super) tail_probes: u64,
    pub(super) duplicate_acks_received: u64,
    pub(super) out_of_order_segments: u64,
    pub(super) out_of_order_bytes: u64,
    /// Data that the peer sent although we had acknowledged it.
    pub(super) repeated_segments_received: u64,
    /// Times a peer closed its window.
    pub(super) zero_windows_received: u64,
    /// Peers whose window is closed.
    pub(super) zero_windows_now: u64,
    /// For how long windows were closed, all connections together.
    pub(super) zero_window_ms: u64,
}

impl Counts {
    /// Names and values, always in the same order.
    pub(super) fn named(&self) -> [(&'static str, u64); 43] {
        [
            ("turns", self.turns),
            ("idle_turns", self.idle_turns),
            ("dpdk_receive_packets", self.rx_frames),
            ("dpdk_receive_bytes", self.rx_bytes),
            ("dpdk_receive_last_bunch", self.rx_last_burst),
            ("connections_opened", self.connections_opened),
            ("connections_accepted", self.connections_accepted),
            ("connections_closed", self.connections_closed),
            ("connections_refused", self.connections_refused),
            ("connections_reset", self.connections_reset),
            ("connections_timed_out", self.connections_timed_out),
            ("connections_unreachable", self.connections_unreachable),
            ("strangers_refused", self.strangers_refused),
            ("early_segment_drops", self.early_segment_drops),
            ("inexact_reset_drops", self.inexact_reset_drops),
            ("late_syn_drops", self.late_syn_drops),
            ("bad_ack_drops", self.bad_ack_drops),
            ("challenge_acks_sent", self.challenge_acks_sent),
            ("challenge_acks_withheld", self.challenge_acks_withheld),
            ("syn_backlog_drops", self.syn_backlog_drops),
            ("syn_limit_drops", self.syn_limit_drops),
            ("syn_cookies_sent", self.syn_cookies_sent),
            ("syn_cookies_returned", self.syn_cookies_returned),
            ("accept_queue_drops", self.accept_queue_drops),
            ("half_open_reaped", self.half_open_reaped),
            ("linger_resets", self.linger_resets),
            ("time_wait_evicted", self.time_wait_evicted),
            ("time_wait_reused", self.time_wait_reused),
            ("frames_handed_over", self.frames_handed_over),
            ("frames_taken_over", self.frames_taken_over),
            ("handover_full_drops", self.handover_full_drops),
            ("link_ups", self.link_ups),
            ("link_downs", self.link_downs),
            ("retransmission_timeouts", self.retransmission_timeouts),
            ("fast_retransmits", self.fast_retransmits),
            ("tail_probes_sent", self.tail_probes),
            ("duplicate_acks_received", self.duplicate_acks_received),
            ("out_of_order_segments", self.out_of_order_segments),
            ("out_of_order_bytes", self.out_of_order_bytes),
            ("repeated_segments_received", self.repeated_segments_received),
            ("zero_windows_received", self.zero_windows_received),
            ("zero_windows_in_use", self.zero_windows_now),
            ("zero_window_ms", self.zero_window_ms),
        ]
    }
}
