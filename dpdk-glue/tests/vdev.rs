//! The whole crate against DPDK's software devices that need no other end.

mod own_process;

use std::env;
use std::fs;
use std::thread;
use std::time::Duration;

use dpdk_glue::{
    BURST_MAX, Burst, Eal, EalOptions, Error, MemoryMode, Mempool, PoolConfig, Port, PortConfig,
    PortSource, Proof, QueuePair, free_burst,
};

use own_process::{FRAME_LEN, eal, in_own_process, open, send, small_pool, vdev};

#[test]
fn a_ring_gives_back_what_it_was_sent_in_order() {
    in_own_process("a_ring_gives_back_what_it_was_sent_in_order", || {
        let eal = eal();
        eal.register_thread().unwrap();
        eal.register_thread().unwrap();
        let pool = small_pool(&eal);
        let (port, mut queues) = open(&eal, &pool, "net_ring0", 1);
        let queues = &mut queues[0];
        let mut burst = Burst::new();
        for number in 0..BURST_MAX {
            let mut mbuf = pool.alloc(FRAME_LEN).unwrap();
            mbuf.bytes_mut().fill(u8::try_from(number).unwrap());
            mbuf.truncate(FRAME_LEN - number);
            burst.push(mbuf);
        }
        assert_eq!(queues.tx.send(&mut burst), BURST_MAX);
        assert!(burst.is_empty());
        assert_eq!(queues.rx.recv(&mut burst), BURST_MAX);
        for (number, mbuf) in burst.iter().enumerate() {
            assert_eq!(mbuf.len(), FRAME_LEN - number);
            assert!(mbuf.bytes().iter().all(|&byte| usize::from(byte) == number));
        }
        assert_eq!(pool.in_use(), BURST_MAX as u64);
        free_burst(&mut burst);
        assert_eq!(pool.in_use(), 0);
        let stats = port.stats().unwrap();
        assert_eq!((stats.rx_packets, stats.tx_packets), (BURST_MAX as u64, BURST_MAX as u64));
    });
}

#[test]
fn what_a_full_ring_refuses_stays_in_front() {
    in_own_process("what_a_full_ring_refuses_stays_in_front", || {
        let eal = eal();
        let pool = small_pool(&eal);
        let (_port, mut queues) = open(&eal, &pool, "net_ring0", 1);
        let mut burst = Burst::new();
        let mut sent = 0_u32;
        let mut numbered = 0_u32;
        loop {
            while !burst.is_full() {
                let mut mbuf = pool.alloc(4).unwrap();
                mbuf.bytes_mut().copy_from_slice(&numbered.to_be_bytes());
                numbered += 1;
                burst.push(mbuf);
            }
            sent += u32::try_from(queues[0].tx.send(&mut burst)).unwrap();
            if !burst.is_empty() {
                break;
            }
        }
        // The first that was refused is the one after the last that was taken.
        assert_eq!(burst[0].bytes(), sent.to_be_bytes());
        assert_eq!(burst.len(), (numbered - sent) as usize);
        let mut arrived = Burst::new();
        let mut expected = 0_u32;
        while queues[0].rx.recv(&mut arrived) > 0 {
            for mbuf in arrived.drain(..) {
                assert_eq!(mbuf.bytes(), expected.to_be_bytes());
                expected += 1;
            }
        }
        assert_eq!(expected, sent);
    });
}

#[test]
fn an_empty_pool_gives_nothing_until_packets_come_home() {
    in_own_process("an_empty_pool_gives_nothing_until_packets_come_home", || {
        let eal = eal();
        let config = PoolConfig { mbufs: 127, room: 256, cache: 0 };
        let pool = Mempool::new(&eal, config).unwrap();
        assert!(pool.alloc(257).is_none(), "longer than the room");
        assert!(pool.alloc(usize::MAX).is_none());
        let mut out: Vec<_> = std::iter::from_fn(|| pool.alloc(256)).collect();
        assert_eq!((out.len(), pool.in_use()), (127, 127));
        let mut burst = Burst::new();
        assert!(!pool.alloc_burst(16, &mut burst));
        out.truncate(127 - BURST_MAX);
        assert!(pool.alloc_burst(16, &mut burst));
        assert_eq!((burst.len(), pool.in_use()), (BURST_MAX, 127));
        assert!(!out[0].append(1), "the room is used up");
        assert!(burst[0].append(240));
        assert_eq!(burst[0].len(), 256);
        // Packets go home from any thread, also one that DPDK does not know.
        thread::spawn(move || drop((out, burst))).join().unwrap();
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn things_may_be_dropped_in_any_order() {
    in_own_process("things_may_be_dropped_in_any_order", || {
        let eal = eal();
        let pool = small_pool(&eal);
        let (port, mut queues) = open(&eal, &pool, "net_ring0", 2);
        let (port_1, queues_1) = open(&eal, &pool, "net_null0", 1);
        drop((eal, pool, port, queues_1));
        let QueuePair { mut rx, mut tx } = queues.remove(0);
        drop(queues);
        let mut burst = Burst::new();
        assert!(tx.pool().alloc_burst(FRAME_LEN, &mut burst));
        thread::spawn(move || assert_eq!(tx.send(&mut burst), BURST_MAX)).join().unwrap();
        assert_eq!(rx.recv(&mut Burst::new()), BURST_MAX);
        drop((port_1, rx));
        // The last owner is gone, and so is EAL, for good.
        assert!(matches!(Eal::start(&EalOptions::default()), Err(Error::EalEnded)));
    });
}

#[test]
fn packets_may_outlive_everything_else() {
    in_own_process("packets_may_outlive_everything_else", || {
        let eal = eal();
        let pool = small_pool(&eal);
        let mut mbuf = pool.alloc(FRAME_LEN).unwrap();
        mbuf.bytes_mut().fill(7);
        drop((pool, eal));
        assert!(mbuf.bytes().iter().all(|&byte| byte == 7));
    });
}

#[test]
fn a_pool_without_owner_serves_the_next_one() {
    in_own_process("a_pool_without_owner_serves_the_next_one", || {
        let eal = eal();
        // Far more pools than fit in memory, were each a new one.
        for _ in 0..100 {
            let pool = small_pool(&eal);
            assert!(pool.alloc(FRAME_LEN).is_some());
        }
        let held = small_pool(&eal).alloc(FRAME_LEN).unwrap();
        let other = small_pool(&eal);
        assert_eq!(other.in_use(), 0, "a pool with packets out is not taken");
        drop(held);
    });
}

#[test]
fn a_port_can_be_opened_again_after_it_was_closed() {
    in_own_process("a_port_can_be_opened_again_after_it_was_closed", || {
        let eal = eal();
        let pool = small_pool(&eal);
        for _ in 0..3 {
            let (_, mut queues) = open(&eal, &pool, "net_ring0", 1);
            assert!(send(&mut queues[0], b"again"));
            // The driver forgets frames that lie in its ring when it is closed.
            assert_eq!(queues[0].rx.recv(&mut Burst::new()), 1);
        }
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn eal_starts_once_for_all_who_want_the_same() {
    in_own_process("eal_starts_once_for_all_who_want_the_same", || {
        let eal = eal();
        let again = own_process::eal();
        let other = EalOptions { memory_mb: 65, ..EalOptions::default() };
        assert!(matches!(Eal::start(&other), Err(Error::EalRunsDifferently)));
        drop(eal);
        // A registered thread keeps EAL up until it ends.
        thread::spawn(move || {
            again.register_thread().unwrap();
            drop(again);
            drop(own_process::eal());
        })
        .join()
        .unwrap();
        assert!(matches!(Eal::start(&other), Err(Error::EalEnded)));
    });
}

#[test]
fn starting_eal_leaves_the_callers_affinity_alone() {
    in_own_process("starting_eal_leaves_the_callers_affinity_alone", || {
        let allowed = || {
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            status.lines().find(|line| line.starts_with("Cpus_allowed:")).unwrap().to_owned()
        };
        let before = allowed();
        let _eal = eal();
        assert_eq!(allowed(), before);
    });
}

#[test]
fn threads_register_as_they_come_and_go() {
    in_own_process("threads_register_as_they_come_and_go", || {
        let eal = eal();
        let pool = small_pool(&eal);
        // More than DPDK has places for, but not at the same time.
        for _ in 0..200 {
            let (eal, pool) = (eal.clone(), pool.clone());
            thread::spawn(move || {
                eal.register_thread().unwrap();
                drop(pool.alloc(FRAME_LEN).unwrap());
            })
            .join()
            .unwrap();
        }
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn errors_show_what_dpdk_said() {
    in_own_process("errors_show_what_dpdk_said", || {
        let eal = eal();
        let pool = small_pool(&eal);
        let fails = |device: &str, config: &PortConfig| {
            Port::open(&eal, &vdev(device), &pool, config).unwrap_err()
        };
        let config = PortConfig { peer_wait: Duration::ZERO, ..PortConfig::default() };

        let error = fails("net_memif0,role=nobody", &config);
        assert!(error.to_string().contains("Unknown role: nobody"), "{error}");
        let error = fails("net_nosuchdriver0", &config);
        assert!(matches!(error, Error::Call { call: "rte_vdev_init", .. }), "{error}");
        let error = fails("net_virtio_user0,path=/nonexistent/socket", &config);
        assert!(matches!(&error, Error::NoPeer { cause, .. } if !cause.lines().is_empty()));
        let error = fails("net_ring0", &PortConfig { queues: 17, ..config.clone() });
        assert!(matches!(error, Error::Queues { wanted: 17, max: 16, .. }), "{error}");
        let error = fails("net_null0", &PortConfig { mtu: 9000, ..config.clone() });
        assert!(matches!(error, Error::Room { .. }), "{error}");
        let jumbo = Mempool::new(&eal, PoolConfig { mbufs: 511, room: 10_240, cache: 0 }).unwrap();
        let long = PortConfig { mtu: 9000, ..config.clone() };
        let error = Port::open(&eal, &vdev("net_memif0"), &jumbo, &long).unwrap_err();
        assert!(matches!(error, Error::Mtu { max: 2030, .. }), "{error}");

        let (port, queues) = open(&eal, &pool, "net_null0", 1);
        let error = fails("net_null0", &config);
        assert!(matches!(error, Error::PortInUse { .. }), "{error}");
        assert!(port.link_is_up() && port.stats().is_some(), "the open port is not disturbed");

        let missing = PortSource::Device("0000:01:00.0".to_owned());
        let error = Port::open(&eal, &missing, &pool, &config).unwrap_err();
        assert!(matches!(error, Error::NoSuchPort { .. }), "{error}");
        drop((port, queues));
        let error = Port::open(&eal, &PortSource::Only, &pool, &config).unwrap_err();
        assert!(matches!(error, Error::NotOnePort { .. }), "{error}");
        let error = Mempool::new(&eal, PoolConfig { mbufs: 1 << 20, ..PoolConfig::default() });
        assert!(matches!(error, Err(Error::Call { call: "rte_pktmbuf_pool_create", .. })));
    });
}

#[test]
fn a_device_that_eal_probed_is_found_by_name_or_as_the_only_one() {
    in_own_process("a_device_that_eal_probed_is_found_by_name_or_as_the_only_one", || {
        let options = EalOptions {
            memory_mb: 64,
            extra_args: vec!["--vdev=net_ring7".to_owned()],
            ..EalOptions::default()
        };
        let eal = Eal::start(&options).unwrap();
        let pool = small_pool(&eal);
        let (port, _queues) =
            Port::open(&eal, &PortSource::Only, &pool, &PortConfig::default()).unwrap();
        assert_eq!(port.info().name, "net_ring7");
    });
}

#[test]
fn a_start_that_fails_says_why_and_is_the_last() {
    in_own_process("a_start_that_fails_says_why_and_is_the_last", || {
        let plugin = ["-d", "/nonexistent/plugin.so"].map(str::to_owned);
        let options = EalOptions { extra_args: plugin.into(), ..EalOptions::default() };
        let error = Eal::start(&options).unwrap_err();
        assert!(matches!(error, Error::EalStart { .. }));
        assert!(error.to_string().contains("/nonexistent/plugin.so"), "{error}");
        assert!(matches!(Eal::start(&EalOptions::default()), Err(Error::EalEnded)));
    });
}

#[test]
fn virtio_user_is_refused_where_it_would_lose_every_frame() {
    in_own_process("virtio_user_is_refused_where_it_would_lose_every_frame", || {
        // Where there are no hugepages EAL does not come up in this mode, which is another error.
        let options = EalOptions {
            memory_mb: 64,
            memory_mode: MemoryMode::InMemory { single_file_segments: false },
            ..EalOptions::default()
        };
        match Eal::start(&options) {
            Ok(eal) => {
                let pool = small_pool(&eal);
                let source = vdev("net_virtio_user0,path=/tmp/none");
                let error = Port::open(&eal, &source, &pool, &PortConfig::default());
                assert!(matches!(error, Err(Error::VirtioUserMemory { .. })));
            }
            Err(error) => assert!(
                matches!(&error, Error::EalStart { cause, .. }
                if cause.to_string().contains("hugepage") || cause.to_string().contains("memory")),
                "{error}"
            ),
        }
    });
}

#[test]
fn a_device_that_takes_frames_is_proved() {
    in_own_process("a_device_that_takes_frames_is_proved", || {
        let eal = eal();
        let pool = small_pool(&eal);
        let frame = [0; FRAME_LEN];
        let time = Duration::from_secs(5);
        // A ring without another end gives our own frames back.
        let (port, mut queues) = open(&eal, &pool, "net_ring0", 1);
        assert_eq!(queues[0].prove(&port, &frame, time).unwrap(), Proof::Received);
        let (port, mut queues) = open(&eal, &pool, "net_null0,no-rx=1", 1);
        assert_eq!(queues[0].prove(&port, &frame, time).unwrap(), Proof::Consumed);
        let socket = env::temp_dir().join(format!("dpdk-glue-{}.sock", std::process::id()));
        let device = format!("net_vhost0,iface={}", socket.display());
        let (port, mut queues) = open(&eal, &pool, &device, 1);
        let proof = queues[0].prove(&port, &frame, Duration::from_millis(50)).unwrap();
        assert_eq!(proof, Proof::LinkDown);
    });
}
