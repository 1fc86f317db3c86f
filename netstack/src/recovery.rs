//! Loss recovery and congestion control of one connection, beside its socket.
//!
//! smoltcp repairs one hole at a time, after a second at the least, and does not read what a peer
//! reports by SACK. So it is left out: what it sends is kept here until it is acknowledged, what
//! is lost is sent again from here, and what smoltcp would repeat is not let through.
//!
//! ```text
//!              acknowledgements                         segments
//!                    |                                     ^
//!    counts them ->  |   keeps the bytes, sends again   ---+
//!   [Scoreboard] [Rtt] [Control]                           |  keeps new ones, drops repeated ones
//!                    |  window cut to what may be sent     |
//!                    v                                     |
//!                  smoltcp ------------------------------->'
//! ```
//!
//! Segments are found lost by time (RACK, RFC 8985) with what SACK says (RFC 2018) or else by
//! duplicates (RFC 6582); a tail that gets no answer is probed (RFC 8985 section 7), and then there
//! is the timeout (RFC 6298). The congestion window reaches smoltcp, which has none of its own, as
//! the window field of the acknowledgements it gets: each acknowledgement that says nothing new is
//! kept from it, so it never sees a duplicate. A repeated segment carries the newest
//! acknowledgement, and its bytes may be cut otherwise than the first time.
//!
//! All of it is a state machine: time comes in as microseconds of the worker's clock, and nothing
//! here sends.

use std::time::Duration;

use crate::front::{TcpFlags, TcpView};
use crate::guard::{self, Known, Offer, Stage};
use crate::native::Congestion;

mod congestion;
mod options;
mod rtt;
mod scoreboard;
#[cfg(test)]
mod tests;

use congestion::{Control, Progress};
use options::Options;
use rtt::Rtt;
pub(crate) use scoreboard::Piece;
use scoreboard::{DUPLICATES, News, Scoreboard, before};

/// A time that never comes.
pub(crate) const NO_TIME: u64 = u64::MAX;
/// Shortest retransmission timeout, for peers that acknowledge at once.
pub(crate) const RTO_MIN: Duration = Duration::from_millis(5);
/// MSS of a peer that does not say (RFC 9293 section 3.7.1).
const MSS_DEFAULT: u16 = 536;
/// Smallest MSS we believe; smoltcp has the same.
const MSS_MIN: u16 = 48;
/// Most quarters of a round trip that segments may be late, before the limit of a whole one.
const PATIENCE_MAX: u32 = 16;
/// How often the timeout stays doubled when the peer answers, but only to what was sent again. That
/// measures nothing, and the timeout may be too short (Karn's algorithm, RFC 6298 section 3).
const BACKOFF_KEPT: u32 = 2;
/// Longest time between two questions for a closed window: the second of RFC 9293 section 3.8.6.1
/// is smoltcp's own.
const ASK_PAUSE_MAX_US: u64 = 500_000;
/// Timeouts in a row after which nothing a peer has reported is believed.
const TIMEOUTS_TO_FORGET: u32 = 2;

/// What becomes of a received segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feed {
    /// smoltcp gets it with these fields.
    As {
        /// Sequence number.
        seq: u32,
        /// Acknowledgement number.
        ack: u32,
        /// Window as it stands in the header.
        window: u16,
    },
    /// smoltcp does not get it.
    Hide,
}

/// What a received segment has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) feed: Feed,
    /// Something was found lost, and nothing was before.
    pub(crate) is_loss: bool,
    /// It acknowledges what was acknowledged and says nothing else (RFC 5681 section 2).
    pub(crate) is_duplicate: bool,
}

/// What becomes of a segment that smoltcp sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// It has something new, or is none of our business.
    Send,
    /// All of it is on its way already, or will be sent again when we see fit.
    Repeated,
}

/// What a timer led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// Nothing yet.
    Nothing,
    /// The time that reordered segments are given is over.
    Reordering,
    /// The last segment is to be sent again, to hear of the peer.
    Probe,
    /// If there is more to send, the peer is to be asked for its window.
    AskWindow,
    /// All that is not acknowledged is to be sent again.
    Timeout,
}

/// How a worker recovers from losses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecoveryOptions {
    pub(crate) congestion: Congestion,
    /// Shortest retransmission timeout; peers must not hold acknowledgements back for longer.
    pub(crate) rto_min: Duration,
    /// Largest segment our own MTU allows, over IPv4.
    pub(crate) mss: u16,
}

/// What of the options of a SYN fits into a cookie, with segments of at most `own_mss`.
pub(crate) fn offer_in(options: &[u8], own_mss: u16) -> Option<Offer> {
    let Options { mss, window_shift, is_sack_permitted, .. } = Options::parse(options);
    Offer::new(mss.unwrap_or(MSS_DEFAULT), window_shift, is_sack_permitted, own_mss)
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Recovery {
    board: Scoreboard,
    rtt: Rtt,
    control: Control,
    /// The window the peer has offered, in bytes from `una`.
    peer_window: u32,
    /// The largest one it has ever offered.
    peer_window_max: u32,
    window_shift: u8,
    /// The shift of our own, should the peer agree.
    own_shift: u8,
    has_shift: bool,
    /// The acknowledgement number and window smoltcp has got last.
    fed: (u32, u16),
    has_sack: bool,
    options: RecoveryOptions,

    /// When something is to be done, in four ways; [`NO_TIME`] if nothing.
    timeout_at: u64,
    probe_at: u64,
    reordering_at: u64,
    ask_at: u64,
    /// Questions for the peer's window since it last changed.
    asked: u32,
    /// The tick of the worker's wheel at which it looks at these.
    pub(crate) armed: u64,

    /// When the SYN was sent, if once.
    syn_sent: Option<u64>,
    /// The peer has acknowledged our SYN.
    is_open: bool,
    last_sent: u64,
    /// Timeouts in a row.
    timeouts: u32,
    /// Timeouts since something was last measured (RFC 6298 section 5.5).
    backoff: u32,
    /// Losses up to here belong together and count once.
    episode: Option<Episode>,
    /// Duplicates in a row, of a peer without SACK.
    duplicates: u32,
    /// Probes since the peer last showed progress.
    probes: u32,
    /// A probe is to be sent, whatever the window.
    is_probe_due: bool,
}

/// A time with losses, from the first one until all that had been sent by then is acknowledged.
#[derive(Clone, Copy, Debug)]
struct Episode {
    end: u32,
    /// When the window was reduced last.
    reduced: u64,
    resent: u32,
    spurious: u32,
}

impl Recovery {
    /// For a connection that has not spoken.
    pub(crate) fn new(options: RecoveryOptions) -> Self {
        Self {
            board: Scoreboard::new(0),
            rtt: Rtt::new(options.rto_min),
            control: Control::new(options.congestion, options.mss.into()),
            peer_window: 0,
            peer_window_max: 0,
            window_shift: 0,
            own_shift: 0,
            has_shift: false,
            fed: (0, 0),
            has_sack: false,
            options,
            timeout_at: NO_TIME,
            probe_at: NO_TIME,
            reordering_at: NO_TIME,
            ask_at: NO_TIME,
            asked: 0,
            armed: NO_TIME,
            syn_sent: None,
            is_open: false,
            last_sent: 0,
            timeouts: 0,
            backoff: 0,
            episode: None,
            duplicates: 0,
            probes: 0,
            is_probe_due: false,
        }
    }

    // What is known.

    /// Bytes, and a FIN, that are sent and not acknowledged.
    pub(crate) fn outstanding(&self) -> u32 {
        self.board.outstanding()
    }

    /// The smoothed round trip, once there is one.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.rtt.smoothed().map(|us| Duration::from_micros(us.into()))
    }

    /// The congestion window in bytes; `None` without congestion control.
    pub(crate) fn congestion_window(&self) -> Option<usize> {
        (self.options.congestion != Congestion::None).then_some(self.control.window() as usize)
    }

    /// The shift of the windows we offer, should the peer have agreed to any.
    fn own_shift(&self) -> u8 {
        if self.has_shift { self.own_shift } else { 0 }
    }

    /// Whether a segment is one that a peer of an open connection sends in the ordinary course.
    #[inline]
    pub(crate) fn is_ordinary(&self, segment: &TcpView) -> bool {
        let special = TcpFlags::SYN | TcpFlags::RST | TcpFlags::ACK;
        let (una, nxt) = (self.board.una(), self.board.nxt());
        TcpFlags(segment.flags.0 & special.0) == TcpFlags::ACK
            && self.is_open
            && guard::is_plausible(segment.ack, una, nxt, self.peer_window_max)
    }

    /// What there is to judge another segment by; `stage` is the socket's, `said` as in
    /// [`Self::on_segment`].
    pub(crate) fn known(&self, stage: Stage, (expected, window): (u32, u16)) -> Known {
        Known {
            stage,
            una: self.board.una(),
            nxt: self.board.nxt(),
            window_max: self.peer_window_max,
            expected,
            offered: u32::from(window) << self.own_shift(),
        }
    }

    /// Reads from the lines that an acknowledgement and a segment need, see `Conn::warm`.
    pub(crate) fn warm(&self) -> usize {
        self.board.warm() ^ self.fed.0 as usize ^ self.timeout_at as usize
    }

    /// When [`Self::on_time`] has something to do, unless something comes between.
    pub(crate) fn poll_timeout(&self) -> u64 {
        self.timeout_at.min(self.probe_at).min(self.reordering_at).min(self.ask_at)
    }

    // What smoltcp sends.

    /// Our SYN, with sequence number `seq`, goes out.
    pub(crate) fn on_syn_sent(&mut self, now: u64, seq: u32, options: &[u8]) {
        let is_first = self.last_sent == 0;
        self.own_shift = Options::parse(options).window_shift.unwrap_or(0);
        self.syn_sent = is_first.then_some(now);
        self.last_sent = now.max(1);
        self.board = Scoreboard::new(seq.wrapping_add(1));
    }

    /// smoltcp sends a segment without SYN or RST.
    pub(crate) fn on_sent(&mut self, now: u64, seq: u32, bytes: &[u8], is_fin: bool) -> Outgoing {
        let nxt = self.board.nxt();
        let end = seq.wrapping_add(bytes.len() as u32 + u32::from(is_fin));
        // An acknowledgement, a keep-alive.
        if seq == end || !before(self.board.una(), end) {
            return Outgoing::Send;
        }
        if !before(nxt, end) {
            return Outgoing::Repeated;
        }
        let known = nxt.wrapping_sub(seq) as usize;
        debug_assert!(known <= bytes.len(), "smoltcp leaves nothing out");
        let was_idle = self.board.outstanding() == 0;
        self.board.push(now, &bytes[known.min(bytes.len())..], is_fin);
        self.last_sent = now;
        self.ask_at = NO_TIME;
        if was_idle {
            self.timeout_at = now + u64::from(self.rtt.timeout(self.backoff));
        }
        self.set_probe(now);
        Outgoing::Send
    }

    /// Something is to be sent after a pause: whether smoltcp believes in a window that is out of
    /// date by now.
    pub(crate) fn on_wake(&mut self, now: u64, said: (u32, u16)) -> Option<Feed> {
        let silent = now.saturating_sub(self.last_sent);
        let is_due = self.board.outstanding() == 0 && self.is_open;
        if !is_due || silent <= u64::from(self.rtt.timeout(0)) {
            return None;
        }
        self.last_sent = now;
        self.control.on_idle();
        self.tell_window(said)
    }

    // What the peer sends.

    /// A segment has come; `options` are the bytes between its fixed header and its payload.
    /// `said` is the acknowledgement number and the window field of our last one.
    pub(crate) fn on_segment(
        &mut self,
        now: u64,
        segment: &TcpView,
        options: &[u8],
        said: (u32, u16),
    ) -> Received {
        let only = |feed| Received { feed, is_loss: false, is_duplicate: false };
        let TcpView { seq, ack, window, flags, .. } = *segment;
        let as_it_is = only(Feed::As { seq, ack, window });
        if flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::RST) && !self.is_open {
            return only(self.on_syn(now, segment, &Options::parse(options)));
        }
        let is_special = flags.intersects(TcpFlags::SYN | TcpFlags::RST);
        if is_special || !flags.contains(TcpFlags::ACK) || !self.is_acceptable(segment, said) {
            return as_it_is;
        }
        let (una, nxt) = (self.board.una(), self.board.nxt());
        let has_content = segment.payload_len > 0 || flags.contains(TcpFlags::FIN);
        if before(ack, una) {
            // An older segment. smoltcp would throw away what is in it.
            return only(match has_content {
                true => Feed::As { seq, ack: una, window: self.fed.1 },
                false => Feed::Hide,
            });
        }
        let is_probe_taken = ack == nxt.wrapping_add(1);
        if before(nxt, ack) && !is_probe_taken {
            // Of what was never sent. smoltcp believes that if it has the bytes.
            return only(Feed::Hide);
        }
        self.on_handshake(now);
        let is_update = self.note_window(segment);
        if is_update {
            self.asked = 0;
        }
        let is_duplicate = ack == una && nxt != una && !has_content && !is_update;
        let mut is_loss = false;
        if nxt != una && (ack != una || is_duplicate || !options.is_empty()) {
            let options = match options.is_empty() {
                true => Options::default(),
                false => Options::parse(options),
            };
            is_loss = self.on_ack(now, if is_probe_taken { nxt } else { ack }, &options);
        }
        if is_probe_taken {
            self.board.skip_to(ack);
        }
        if self.board.outstanding() == 0 {
            self.watch_window(now);
        }
        let fed = (ack, self.window_field(window));
        let is_news = has_content || self.board.outstanding() == 0 || self.fed != fed;
        self.fed = fed;
        let feed = match is_news {
            true if has_content => Feed::As { seq, ack, window: fed.1 },
            true => Feed::As { seq: self.last_in_window(said), ack, window: fed.1 },
            false => Feed::Hide,
        };
        Received { feed, is_loss, is_duplicate }
    }

    /// Whether smoltcp will look at what a segment acknowledges. What is before all that it
    /// expects it only answers, and we must not know more than it does; so it is with what a
    /// stranger guesses, too (RFC 9293 section 3.10.7.4).
    fn is_acceptable(&self, segment: &TcpView, (expected, window): (u32, u16)) -> bool {
        let len = segment.payload_len as u32 + u32::from(segment.flags.contains(TcpFlags::FIN));
        let offered = u32::from(window) << self.own_shift();
        let is_old = match len {
            0 => before(segment.seq, expected),
            len => !before(expected, segment.seq.wrapping_add(len)),
        };
        !is_old && !before(expected.wrapping_add(offered), segment.seq)
    }

    /// A sequence number that smoltcp takes in a segment without content: the last one of the
    /// window we have offered. Part of that may be received and not acknowledged yet.
    fn last_in_window(&self, (expected, window): (u32, u16)) -> u32 {
        let offered = u32::from(window) << self.own_shift();
        expected.wrapping_add(offered.saturating_sub(1))
    }

    /// Bytes that are kept until they are acknowledged.
    pub(crate) fn kept(&self) -> usize {
        self.board.kept()
    }

    /// The last acknowledgement again, for a socket that has not taken it.
    pub(crate) fn again(&self, said: (u32, u16)) -> Feed {
        Feed::As { seq: self.last_in_window(said), ack: self.board.una(), window: self.fed.1 }
    }

    /// A window that is closed, or nearly, will be opened by a segment that may be lost. The longer
    /// that takes the less often the peer is asked: it may have no wish to open it.
    fn watch_window(&mut self, now: u64) {
        self.ask_at = match self.rtt.smoothed() {
            Some(smoothed) if self.peer_window < self.control.mss() => {
                let pause = (2 * u64::from(smoothed)) << self.asked.min(32);
                now + pause.min(ASK_PAUSE_MAX_US)
            }
            _ => NO_TIME,
        };
    }

    /// A peer of which a cookie is all that is left has come back, with this window.
    pub(crate) fn revive(&mut self, now: u64, offer: Offer, window: u16) {
        // How long the handshake took is not known: as if our SYN were sent for the second time.
        self.last_sent = now.max(1);
        self.meet(window, offer);
    }

    fn on_syn(&mut self, now: u64, segment: &TcpView, options: &Options) -> Feed {
        let Options { mss, window_shift, is_sack_permitted, .. } = *options;
        let mss = Some(mss.unwrap_or(MSS_DEFAULT));
        self.meet(segment.window, Offer { mss, window_shift, is_sack_permitted });
        let mut window = segment.window;
        if segment.flags.contains(TcpFlags::ACK) && segment.ack == self.board.nxt() {
            self.on_handshake(now);
            // The window of a SYN is never scaled.
            window = window.min(self.control.window().min(u16::MAX.into()) as u16);
        }
        Feed::As { seq: segment.seq, ack: segment.ack, window }
    }

    /// Notes what the peer has said in its SYN.
    fn meet(&mut self, window: u16, offer: Offer) {
        let own_mss = self.options.mss;
        let mss = offer.mss.unwrap_or(own_mss).max(MSS_MIN).min(own_mss);
        self.control = Control::new(self.options.congestion, mss.into());
        self.has_sack = offer.is_sack_permitted;
        self.window_shift = offer.window_shift.unwrap_or(0);
        self.has_shift = offer.window_shift.is_some();
        self.peer_window = window.into();
        self.peer_window_max = self.peer_window;
    }

    fn on_handshake(&mut self, now: u64) {
        self.is_open = true;
        if let Some(sent) = self.syn_sent.take() {
            self.rtt.sample(now, now.saturating_sub(sent) as u32);
        }
    }

    /// Notes the peer's window; returns whether it has changed.
    fn note_window(&mut self, segment: &TcpView) -> bool {
        let window = u32::from(segment.window) << self.window_shift;
        self.peer_window_max = self.peer_window_max.max(window);
        std::mem::replace(&mut self.peer_window, window) != window
    }

    /// An acknowledgement of something on its way, or a duplicate.
    fn on_ack(&mut self, now: u64, ack: u32, options: &Options) -> bool {
        let una = self.board.una();
        let outstanding = self.board.outstanding();
        let is_limited = outstanding + 3 * self.control.mss() >= self.control.window();
        let least = self.rtt.least();
        let mut news = News::default();
        self.board.acknowledge(now, ack, least, &mut news);
        for (index, block) in options.blocks().iter().enumerate() {
            let outer = options.blocks().get(1).filter(|_| index == 0);
            if self.is_duplicate(*block, outer.copied()) {
                news.spurious += 1;
            } else if self.has_sack {
                self.board.mark(now, *block, least, &mut news);
            }
        }
        if self.board.is_reneged() {
            self.board.lose_all(true);
        }
        if let Some(took) = news.round_trip_us {
            self.rtt.sample(now, took);
            self.backoff = 0;
        }
        if self.board.outstanding() == 0 {
            // Nothing can be lost.
        } else if self.has_sack {
            self.detect(now, &mut news);
        } else {
            self.on_duplicate(ack, ack == una, &mut news);
        }
        let is_loss = self.judge(now, &news);
        if ack != una || news.delivered > 0 {
            self.on_progress(now, is_limited, &news);
        }
        is_loss
    }

    /// A block of what arrived a second time: RFC 2883 section 4.
    fn is_duplicate(&self, block: (u32, u32), outer: Option<(u32, u32)>) -> bool {
        let is_within = |outer: (u32, u32)| !before(block.0, outer.0) && !before(outer.1, block.1);
        let is_old = before(block.0, self.board.una()) && !before(self.board.una(), block.1);
        is_old || outer.is_some_and(is_within)
    }

    /// For peers without SACK: NewReno (RFC 6582), where each duplicate means that one segment
    /// has left the network.
    fn on_duplicate(&mut self, ack: u32, is_duplicate: bool, news: &mut News) {
        self.duplicates = if is_duplicate { self.duplicates + 1 } else { 0 };
        let is_partial = !is_duplicate
            && self.episode.is_some_and(|episode| before(ack, episode.end))
            && self.timeouts == 0;
        if self.duplicates == DUPLICATES && self.episode.is_none() || is_partial {
            self.board.lose_first(news);
        }
    }

    fn detect(&mut self, now: u64, news: &mut News) {
        let times = (self.rtt.least(), self.rtt.smoothed().unwrap_or(0));
        let wait = self.board.detect(now, self.episode.is_some(), times, news);
        self.reordering_at = wait.map_or(NO_TIME, |wait| now + u64::from(wait));
    }

    /// Draws the consequences of losses and of false alarms. Returns whether an episode begins.
    fn judge(&mut self, now: u64, news: &News) -> bool {
        if news.spurious + news.doubtful > 0 {
            self.board.be_patient(PATIENCE_MAX);
        }
        if news.spurious > 0
            && let Some(episode) = &mut self.episode
        {
            episode.spurious += news.spurious;
            if episode.spurious >= episode.resent {
                self.control.undo();
            }
        }
        if news.lost == 0 {
            return false;
        }
        let least = self.rtt.least();
        let round_trip = u64::from(self.rtt.smoothed().unwrap_or(0));
        match &mut self.episode {
            Some(episode) => {
                // What was sent again is lost again: the reduced window is still too large.
                if news.is_lost_again && now.saturating_sub(episode.reduced) > round_trip {
                    episode.reduced = now;
                    self.control.on_loss(least);
                }
                false
            }
            None => {
                self.episode =
                    Some(Episode { end: self.board.nxt(), reduced: now, resent: 0, spurious: 0 });
                self.control.on_loss(least);
                true
            }
        }
    }

    fn on_progress(&mut self, now: u64, is_limited: bool, news: &News) {
        let una = self.board.una();
        let progress = Progress {
            furthest: self.board.furthest(),
            nxt: self.board.nxt(),
            delivered: news.delivered,
            lost: news.lost,
            round_trip_us: news.round_trip_us,
            least_us: self.rtt.least(),
            is_limited,
        };
        self.control.on_progress(&progress);
        self.probes = 0;
        self.is_probe_due = false;
        self.timeouts = 0;
        self.backoff = self.backoff.min(BACKOFF_KEPT);
        if self.episode.is_some_and(|episode| !before(una, episode.end)) {
            self.episode = None;
            self.duplicates = 0;
            self.control.on_repaired();
        }
        if self.episode.is_none() || self.control.grows_in_repair() {
            let smoothed = self.rtt.smoothed().unwrap_or(0);
            self.control.on_ack(now, news.delivered, is_limited, smoothed);
        }
        if self.board.outstanding() == 0 {
            self.timeout_at = NO_TIME;
            self.probe_at = NO_TIME;
            self.reordering_at = NO_TIME;
        } else {
            self.timeout_at = now + u64::from(self.rtt.timeout(self.backoff));
            self.set_probe(now);
        }
    }

    // Windows.

    /// What may be on its way and is not, in whole segments: smoltcp would send crumbs too. The
    /// last one may be beyond the window, else a window that has grown by a part of a segment
    /// would not be tried before the next loss.
    fn room(&self) -> u32 {
        let used = self.board.flying() + self.board.to_resend();
        // Without SACK duplicates tell how much has left the network.
        let arrived = self.duplicates * self.control.mss();
        let room = self.control.window().saturating_sub(used.saturating_sub(arrived));
        room.next_multiple_of(self.control.mss())
    }

    /// The window field for smoltcp: what the peer's `field` allows, but no more than we do. Scaled
    /// windows are coarse, a kilobyte is not rare; so that whole segments fit it is the next larger
    /// one, see [`Self::is_short_of_window`].
    fn window_field(&self, field: u16) -> u16 {
        let room = self.room();
        let spare = if room > 0 { (1 << self.window_shift) - 1 } else { 0 };
        let window = self.board.outstanding().saturating_add(room).saturating_add(spare);
        let ours = (window >> self.window_shift).clamp(1, u16::MAX.into()) as u16;
        field.min(ours)
    }

    /// Whether of `queued` bytes, those on their way among them, some do not fit into the window
    /// that smoltcp knows, which is smaller than the peer's. Then it is to send whole segments
    /// only: what the window has left is no reason for a short one.
    pub(crate) fn is_short_of_window(&self, queued: usize) -> bool {
        let window = u32::from(self.fed.1) << self.window_shift;
        (1..self.peer_window).contains(&window) && (window as usize) < queued
    }

    /// The window has become smaller without an acknowledgement.
    fn tell_window(&mut self, said: (u32, u16)) -> Option<Feed> {
        let field = (self.peer_window >> self.window_shift) as u16; // was a field
        let feed = (self.board.una(), self.window_field(field));
        if feed == self.fed {
            return None;
        }
        self.fed = feed;
        Some(self.again(said))
    }

    // Sending again.

    /// What is to be sent again now, if anything.
    pub(crate) fn next_piece(&mut self) -> Option<Piece> {
        if self.board.to_resend() == 0 {
            return None;
        }
        let arrived = self.duplicates * self.control.mss();
        let flying = self.board.flying().saturating_sub(arrived);
        // The first piece after a loss goes at once, whatever the window (RFC 6675 section 5).
        let is_first = self.episode.is_some_and(|episode| episode.resent == 0);
        if flying >= self.control.window() && !is_first && !self.is_probe_due {
            return None;
        }
        self.board.next_piece()
    }

    /// The bytes of a piece, in two parts.
    pub(crate) fn bytes(&self, piece: Piece) -> (&[u8], &[u8]) {
        self.board.bytes(piece)
    }

    /// What [`Self::next_piece`] returned was sent.
    pub(crate) fn on_resent(&mut self, now: u64) {
        self.board.on_resent(now);
        self.last_sent = now;
        self.is_probe_due = false;
        self.set_probe(now);
        if let Some(episode) = &mut self.episode {
            episode.resent += 1;
        }
    }

    // Time.

    /// Does what is due. smoltcp is to be fed what comes with it.
    pub(crate) fn on_time(&mut self, now: u64, said: (u32, u16)) -> (Alarm, Option<Feed>) {
        if self.board.outstanding() == 0 {
            let is_due = now >= self.ask_at;
            if is_due {
                self.asked += 1;
                self.ask_at = NO_TIME;
            }
            return (if is_due { Alarm::AskWindow } else { Alarm::Nothing }, None);
        }
        if now >= self.timeout_at {
            self.on_timeout(now);
            return (Alarm::Timeout, self.tell_window(said));
        }
        if now >= self.reordering_at {
            let mut news = News::default();
            self.detect(now, &mut news);
            self.judge(now, &news);
            return (Alarm::Reordering, None);
        }
        if now >= self.probe_at {
            self.board.probe(self.probes.is_multiple_of(2));
            self.probes += 1;
            self.is_probe_due = true;
            self.set_probe(now);
            return (Alarm::Probe, None);
        }
        (Alarm::Nothing, None)
    }

    fn on_timeout(&mut self, now: u64) {
        self.timeouts += 1;
        self.backoff += 1;
        self.board.lose_all(self.timeouts >= TIMEOUTS_TO_FORGET);
        self.duplicates = 0;
        if self.timeouts == 1 {
            self.control.on_timeout();
            let resent = 0;
            self.episode =
                Some(Episode { end: self.board.nxt(), reduced: now, resent, spurious: 0 });
        }
        self.timeout_at = now + u64::from(self.rtt.timeout(self.backoff));
        self.probe_at = NO_TIME;
        self.reordering_at = NO_TIME;
    }

    /// RFC 8985 section 7.2: two round trips after the last sign of life, and longer if the peer
    /// may be holding back its acknowledgement of a lone segment. Other than there, also while
    /// losses are repaired: what is sent again may be lost again, and nothing follows it when the
    /// window is full. For the same reason one probe may not be enough; each waits twice as long
    /// as the one before.
    fn set_probe(&mut self, now: u64) {
        self.probe_at = NO_TIME;
        // After a timeout it is the next one's turn. Without SACK a probe tells little.
        if self.timeouts > 0 || self.probes > 0 && !self.has_sack {
            return;
        }
        if let Some(smoothed) = self.rtt.smoothed() {
            let delay = if self.board.is_lone() { self.rtt.ack_delay() } else { 0 };
            let pause = (2 * u64::from(smoothed)) << self.probes.min(32);
            let at = now + pause + u64::from(delay);
            if at < self.timeout_at {
                self.probe_at = at;
            }
        }
    }
}
