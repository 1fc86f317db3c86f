//! What is asked of a port: never more than it offers.

use std::ffi::CStr;
use std::ptr;

use dpdk_sys as sys;

use super::{Device, FRAME_OVERHEAD};
use crate::eal::control;
use crate::error::Error;
use crate::log::Mark;
use crate::port::{PortInfo, Rss};
use crate::vdev::Driver;

/// What a driver adds to the MTU when it says how long a frame may be and does not say how it
/// counts: Ethernet header and frame check sequence.
const DRIVER_OVERHEAD: u32 = 14 + 4;
/// The longest packet that `net_memif` lets us configure. It carries longer ones nevertheless, up
/// to its buffers' size.
const MEMIF_MTU: u16 = 1500;
/// Bytes of a Toeplitz key that covers an IPv6 4-tuple.
const RSS_KEY_LEN_MIN: u8 = 40;

impl Device {
    /// Configures the port and its queues.
    pub(super) fn configure(&self, id: u16, mark: Mark) -> Result<PortInfo, Error> {
        let device = self.device_info(id, mark)?;
        let max = device.max_rx_queues.min(device.max_tx_queues);
        let queues = self.config.queues;
        if !(1..=max).contains(&queues) {
            let (name, wanted) = (self.name().to_owned(), queues);
            return Err(Error::Queues { name, wanted, max });
        }
        let wanted = self.port_conf(&device)?;
        // SAFETY: EAL is up and `wanted` is a complete configuration.
        let code = unsafe { sys::rte_eth_dev_configure(id, queues, queues, &raw const wanted) };
        self.check("rte_eth_dev_configure", code, mark)?;
        let (rx_descriptors, tx_descriptors) = self.set_up_queues(id, mark)?;
        // Neighbour discovery of IPv6 needs multicast; software devices pass all and may not know
        // the call.
        // SAFETY: EAL is up; the port exists.
        let multicast = unsafe { sys::rte_eth_allmulticast_enable(id) };
        tracing::debug!(port = self.name(), multicast, "multicast reception");
        Ok(PortInfo {
            name: self.name().to_owned(),
            driver: driver_name(&device),
            mac: self.mac(id, mark)?,
            mtu: self.config.mtu,
            queues,
            rx_descriptors,
            tx_descriptors,
            rx_checksum: wanted.rxmode.offloads != 0,
            rss: None,
        })
    }

    fn device_info(&self, id: u16, mark: Mark) -> Result<sys::rte_eth_dev_info, Error> {
        let mut device = sys::rte_eth_dev_info::default();
        // SAFETY: EAL is up, and `device` has room for the answer.
        let code = unsafe { sys::rte_eth_dev_info_get(id, &raw mut device) };
        self.check("rte_eth_dev_info_get", code, mark)?;
        Ok(device)
    }

    /// Asks only for what the port offers. Software devices are asked for nothing at all: their
    /// checksum offloads are loops over the payload no better than ours, or leave checksums out of
    /// the frame; and none of them spreads flows by RSS, even where the configuration is accepted.
    fn port_conf(&self, device: &sys::rte_eth_dev_info) -> Result<sys::rte_eth_conf, Error> {
        let mut conf = sys::rte_eth_conf::default();
        conf.rxmode.mtu = self.ethdev_mtu(device)?.into();
        conf.rxmode.mq_mode = sys::RTE_ETH_MQ_RX_NONE;
        if self.is_software() {
            conf.intr_conf.set_rxq(self.has_arrival_files().into());
            return Ok(conf);
        }
        if self.config.rx_checksum {
            // SAFETY: a constant.
            let wanted = unsafe { sys::shim_rx_offload_checksum };
            conf.rxmode.offloads = wanted & device.rx_offload_capa;
            self.report_dropped("receive checksum offloads", wanted, device.rx_offload_capa);
        }
        // SAFETY: a constant.
        let rss = unsafe { sys::shim_rss_tcp };
        let offered = rss & device.flow_type_rss_offloads;
        if self.config.queues > 1 && offered != 0 {
            conf.rxmode.mq_mode = sys::RTE_ETH_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_hf = offered;
        }
        if self.config.queues > 1 {
            self.report_dropped("RSS by TCP 4-tuple", rss, device.flow_type_rss_offloads);
        }
        Ok(conf)
    }

    fn report_dropped(&self, what: &str, wanted: u64, offered: u64) {
        let dropped = wanted & !offered;
        if dropped != 0 {
            tracing::info!(
                port = self.name(),
                "{what}: the port lacks {dropped:#x} of {wanted:#x}"
            );
        }
    }

    /// The MTU to configure, which is not always the one that works.
    fn ethdev_mtu(&self, device: &sys::rte_eth_dev_info) -> Result<u16, Error> {
        let wanted = self.config.mtu;
        let too_long =
            |max, advice| Err(Error::Mtu { name: self.name().to_owned(), wanted, max, advice });
        if let Some(vdev) = &self.vdev
            && vdev.driver() == Driver::Memif
        {
            let frame = usize::from(vdev.memif_bsize());
            let max = frame.saturating_sub(FRAME_OVERHEAD).try_into().unwrap_or(u16::MAX);
            if wanted > max {
                return too_long(max, "; give both ends a larger bsize, like bsize=10240");
            }
            return Ok(wanted.min(MEMIF_MTU));
        }
        let overhead = match device.max_mtu {
            u16::MAX | 0 => DRIVER_OVERHEAD,
            max => device.max_rx_pktlen.checked_sub(max.into()).unwrap_or(DRIVER_OVERHEAD),
        };
        let max = device.max_rx_pktlen.saturating_sub(overhead).min(device.max_mtu.into());
        let max = u16::try_from(max).unwrap_or(u16::MAX);
        if wanted > max {
            return too_long(max, "");
        }
        Ok(wanted)
    }

    fn set_up_queues(&self, id: u16, mark: Mark) -> Result<(u16, u16), Error> {
        let (mut rx, mut tx) = (self.config.rx_descriptors, self.config.tx_descriptors);
        // SAFETY: EAL is up; both numbers are in and out.
        let code = unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(id, &raw mut rx, &raw mut tx) };
        self.check("rte_eth_dev_adjust_nb_rx_tx_desc", code, mark)?;
        // SAFETY: EAL is up; -1 for "anywhere" is what both sides take.
        let node = unsafe { sys::rte_eth_dev_socket_id(id) }.cast_unsigned();
        for queue in 0..self.config.queues {
            // SAFETY: EAL is up; no queue configuration means the driver's own; the pool is live
            // and stays so for as long as this device.
            let code = unsafe {
                sys::rte_eth_rx_queue_setup(id, queue, rx, node, ptr::null(), self.pool.raw())
            };
            self.check("rte_eth_rx_queue_setup", code, mark)?;
            // SAFETY: as above.
            let code = unsafe { sys::rte_eth_tx_queue_setup(id, queue, tx, node, ptr::null()) };
            self.check("rte_eth_tx_queue_setup", code, mark)?;
        }
        Ok((rx, tx))
    }

    fn mac(&self, id: u16, mark: Mark) -> Result<[u8; 6], Error> {
        let mut mac = sys::rte_ether_addr::default();
        // SAFETY: EAL is up, and `mac` has room for the answer.
        let code = unsafe { sys::rte_eth_macaddr_get(id, &raw mut mac) };
        self.check("rte_eth_macaddr_get", code, mark)?;
        Ok(mac.addr_bytes)
    }

    /// How a started hardware port spreads flows, if it does and tells.
    pub(crate) fn rss(&self) -> Option<Rss> {
        let id = self.id.filter(|_| !self.is_software() && self.config.queues > 1)?;
        let (_control, mark) = control();
        let device = self.device_info(id, mark).ok()?;
        let key = rss_key(id, device.hash_key_size)?;
        let table = rss_table(id, device.reta_size)?;
        Some(Rss { key, table })
    }
}

/// The key, when the port hashes TCP 4-tuples.
fn rss_key(id: u16, len: u8) -> Option<Vec<u8>> {
    let len = len.max(RSS_KEY_LEN_MIN);
    let mut key = vec![0; len.into()];
    let mut conf =
        sys::rte_eth_rss_conf { rss_key: key.as_mut_ptr(), rss_key_len: len, ..Default::default() };
    // SAFETY: EAL is up, and `conf` points to room for a key of the length it says.
    let code = unsafe { sys::rte_eth_dev_rss_hash_conf_get(id, &raw mut conf) };
    // SAFETY: a constant.
    let tcp = unsafe { sys::shim_rss_tcp };
    (code == 0 && conf.rss_hf & tcp != 0).then_some(key)
}

/// The redirection table: which queue each hash goes to.
fn rss_table(id: u16, len: u16) -> Option<Vec<u16>> {
    const GROUP: usize = sys::RTE_ETH_RETA_GROUP_SIZE as usize;
    let groups = usize::from(len).div_ceil(GROUP);
    let mut table =
        vec![sys::rte_eth_rss_reta_entry64 { mask: u64::MAX, ..Default::default() }; groups];
    // SAFETY: EAL is up, and the table has room for `len` entries.
    let code = unsafe { sys::rte_eth_dev_rss_reta_query(id, table.as_mut_ptr(), len) };
    let entries = table.iter().flat_map(|group| group.reta).take(len.into());
    (code == 0 && len > 0).then(|| entries.collect())
}

fn driver_name(device: &sys::rte_eth_dev_info) -> String {
    if device.driver_name.is_null() {
        return String::new();
    }
    // SAFETY: drivers' names are static strings.
    unsafe { CStr::from_ptr(device.driver_name) }.to_string_lossy().into_owned()
}
