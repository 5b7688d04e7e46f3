//! When tokens are sent, who waits for whom, and that only the times depend on the clock.

use std::io::Read;

use serde_json::{Value, json};

use super::{CHAT, Sim, chat, read};

fn times(line: &Value) -> Vec<u64> {
    line["chunk_ns"].as_array().unwrap().iter().map(|time| time.as_u64().unwrap()).collect()
}

#[test]
fn the_log_has_the_times_of_all() {
    let sim = Sim::new(json!({"ttft_ms": 20, "itl_ms": 5}));
    sim.chat(Some("my id"), 4);
    let log = sim.log();
    let line = &log[0];
    let chunks = times(line);
    assert_eq!(chunks.len(), 4);
    let time = |name: &str| line[name].as_u64().unwrap();
    let order = [
        time("recv0_ns"),
        time("recv_ns"),
        time("start_ns"),
        chunks[0],
        time("first_ns"),
        time("last_ns"),
        time("end_ns"),
    ];
    assert!(order.is_sorted(), "{line}");
    assert!(chunks.is_sorted() && chunks[3] <= time("last_ns"));
    // never early, and each by its own due time: what one is late by is not added to the next
    for (index, chunk) in chunks.iter().enumerate() {
        assert!(*chunk >= time("start_ns") + 20_000_000 + 5_000_000 * index as u64, "{index} {line}");
    }
    assert_eq!(
        (&line["xid"], &line["status"], &line["fault"], &line["tokens"], &line["inflight"], &line["stream"]),
        (&json!("my id"), &json!(200), &Value::Null, &json!(4), &json!(1), &json!(true))
    );
}

#[test]
fn without_delays_all_is_one_write() {
    let sim = Sim::new(json!({}));
    assert_eq!(sim.chat(None, 100).contents().len(), 100);
    let chunks = times(&sim.log()[0]);
    assert_eq!(chunks, [chunks[0]; 100]);
}

#[test]
fn long_answers_come_in_blocks() {
    let sim = Sim::new(json!({"tokens": 5000}));
    assert_eq!(sim.chat(None, 1_000_000).contents().len(), 5000);
    let mut chunks = times(&sim.log()[0]);
    assert_eq!(chunks.len(), 5000);
    chunks.dedup();
    assert!((2..100).contains(&chunks.len()), "{}", chunks.len());
}

#[test]
fn slots_are_given_in_the_order_of_arrival() {
    let sim = Sim::new(json!({"slots": 2, "ttft_ms": 30}));
    let mut streams = Vec::new();
    for n in 0..6 {
        streams.push(sim.send(CHAT, Some(&n.to_string()), &chat(1)));
        // the next one is to arrive later: this one is answered, or waits already
        sim.settle();
    }
    for stream in &mut streams {
        assert_eq!(read(stream).contents().len(), 1);
    }
    let mut log = sim.log();
    log.sort_by_key(|line| line["start_ns"].as_u64());
    let xids: Vec<&str> = log.iter().map(|line| line["xid"].as_str().unwrap()).collect();
    assert_eq!(xids, ["0", "1", "2", "3", "4", "5"]);
    for three in log.windows(3) {
        let end = three[0]["first_ns"].as_u64().min(three[1]["first_ns"].as_u64());
        assert!(
            three[2]["start_ns"].as_u64() >= end,
            "a third is generated only after one of two: {three:?}"
        );
    }
    assert!(log.iter().any(|line| line["inflight"].as_u64() > Some(2)));
}

#[test]
fn texts_and_times_repeat() {
    let drawn = json!({"tokens": {"dist": "uniform", "low": 5, "high": 40}, "itl_ms": {"dist": "exp", "mean": 0.1}, "ttft_ms": {"dist": "lognormal", "mean": 1, "sigma": 0.5}});
    let with = |seed: u64, more: Value| {
        let mut all = drawn.clone();
        all["seed"] = json!(seed);
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Sim::new(all)
    };
    let texts = |sim: &Sim, xids: &[Option<&str>]| -> Vec<Vec<u8>> {
        xids.iter().map(|xid| sim.chat(*xid, 1000).body).collect()
    };
    let first = texts(&with(1, json!({})), &[Some("a"), Some("b"), None, None]);
    let again = texts(&with(1, json!({})), &[Some("a"), Some("b"), None, None]);
    assert_eq!(first, again);
    // an id's text depends on neither order nor delays
    let other = texts(&with(1, json!({"ttft_ms": 0, "itl_ms": 0})), &[Some("b"), Some("a")]);
    assert_eq!((&other[0], &other[1]), (&first[1], &first[0]));
    assert_ne!(first[2], first[3], "without an id the number counts");
    assert_ne!(first, texts(&with(2, json!({})), &[Some("a"), Some("b"), None, None]));
}

#[test]
fn requests_that_are_generated_together_slow_each_other() {
    let sim = Sim::new(json!({"itl_ms": 5, "batch": {"itl_ms_per_request": 20}}));
    let mut first = sim.send(CHAT, Some("long"), &chat(100_000));
    // it has its head, so it is being generated
    first.read_exact(&mut [0; 1]).unwrap();
    assert_eq!(sim.chat(Some("short"), 4).contents().len(), 4);
    drop(first);
    let log = sim.log();
    let line = log.iter().find(|line| line["xid"] == "short").unwrap();
    assert!(times(line)[3] >= line["start_ns"].as_u64().unwrap() + 3 * 25_000_000, "{line}");
}

#[test]
fn a_pause_stops_reading_and_writing() {
    let sim = Sim::new(json!({"itl_ms": 10, "pauses": [{"at": 0.025, "for": 0.1}]}));
    let mut first = sim.send(CHAT, Some("first"), &chat(4));
    read(&mut first);
    let log = sim.log();
    let (start, chunks) = (log[0]["recv0_ns"].as_u64().unwrap(), times(&log[0]));
    let in_pause = |time: u64| (25_000_000..125_000_000).contains(&(time - start));
    assert!(chunks.iter().all(|time| !in_pause(*time)), "{start} {chunks:?}");
    assert!(chunks[3] >= start + 125_000_000);
}
