//! The programs as they are shipped: started, asked, killed, started again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use regent_evidence::Evidence;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut fact: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !fact() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn free_tcp() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn free_udp() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn command(dir: &Path, listen: SocketAddr, sink: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    command
        .env("SITE", "ireland")
        .env("GROUP", "ireland/shop")
        .env("POD", "shop-0")
        .env("POD_UID", "uid-0")
        .env("JOURNAL_DIR", dir)
        .env("SINK", sink.to_string())
        .env("LISTEN", listen.to_string())
        .env("EPOCH_FILE", dir.join("epoch"));
    command
}

fn shop(dir: &Path, listen: SocketAddr, sink: SocketAddr) -> Running {
    Running(command(dir, listen, sink).spawn().unwrap())
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|l| serde_json::from_str(l).expect(l)).collect()
}

fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn a_killed_shop_continues_its_journal_and_every_line_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("ireland-shop-0.jsonl");
    for round in 1..=3 {
        let before = lines(&journal).len();
        let _running = shop(dir.path(), free_tcp(), free_udp());
        until(&format!("lines of round {round}"), || {
            fs::read_to_string(&journal).unwrap_or_default().lines().count() >= before + 3
        });
    }
    let lines = lines(&journal);
    let seqs: Vec<u64> = lines.iter().map(|l| l["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=lines.len() as u64).collect::<Vec<_>>());
    let times: Vec<u64> = lines.iter().map(|l| l["boot_ns"].as_u64().unwrap()).collect();
    assert!(times.is_sorted());
    assert_eq!(lines[0]["uid"], "uid-0");
}

#[test]
fn a_shop_that_knows_only_its_node_takes_the_site_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let _running = Running(
        command(dir.path(), free_tcp(), free_udp()).env_remove("SITE").env("NODE", "new-york-12").spawn().unwrap(),
    );
    let journal = dir.path().join("new-york-shop-0.jsonl");
    until("a line of new-york", || fs::read_to_string(&journal).unwrap_or_default().contains("\"site\":\"new-york\""));
}

#[test]
fn the_epoch_is_read_again_for_each_line() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("ireland-shop-0.jsonl");
    let _running = shop(dir.path(), free_tcp(), free_udp());
    let seen = |epoch: &Value| {
        let text = fs::read_to_string(&journal).unwrap_or_default();
        text.lines().any(|l| serde_json::from_str::<Value>(l).is_ok_and(|line| line["epoch"] == *epoch))
    };
    until("a line without an epoch", || seen(&Value::Null));
    fs::write(dir.path().join("epoch"), "2.3\n").unwrap();
    until("a line under 2.3", || seen(&"2.3".into()));
    fs::write(dir.path().join("epoch"), "3.1").unwrap();
    until("a line under 3.1", || seen(&"3.1".into()));
}

#[test]
fn the_shop_answers_with_who_it_is_and_the_client_sees_it_live_and_dead() {
    let dir = tempfile::tempdir().unwrap();
    let (listen, dead) = (free_tcp(), free_tcp());
    fs::write(dir.path().join("epoch"), "1.1").unwrap();
    let running = shop(dir.path(), listen, free_udp());
    until("an answer under the epoch", || {
        get(listen, "/").is_some_and(|a| {
            a.starts_with("HTTP/1.1 200 OK\r\n") && a.contains("\r\n\r\nireland shop-0 ") && a.ends_with(" 1.1\n")
        })
    });
    assert!(get(listen, "/healthz").unwrap().starts_with("HTTP/1.1 200"));
    assert!(get(listen, "/else").unwrap().starts_with("HTTP/1.1 404"));

    let record = dir.path().join("client.jsonl");
    let mut client = Command::new(env!("CARGO_BIN_EXE_client"))
        .args(["--out", record.to_str().unwrap(), "--stop-with-stdin"])
        .args(["--target", &format!("ireland={listen}")])
        .args(["--target", &format!("france={dead}")])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let seen = |site: &str, outcome: &str| {
        let text = fs::read_to_string(&record).unwrap_or_default();
        text.lines()
            .any(|l| serde_json::from_str::<Value>(l).is_ok_and(|l| l["site"] == site && l["outcome"] == outcome))
    };
    until("ireland answers", || seen("ireland", "ok"));
    until("france refuses", || seen("france", "refused"));
    drop(running);
    until("ireland refuses once its shop is dead", || seen("ireland", "refused"));
    drop(client.stdin.take());
    assert!(client.wait().unwrap().success());
    for line in lines(&record) {
        assert!(line["end_ns"].as_u64().unwrap() >= line["start_ns"].as_u64().unwrap());
    }
}

#[test]
fn a_target_that_swallows_everything_never_breaks_the_clients_rhythm() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("client.jsonl");
    // It listens and never answers: each request lasts for its whole time-out.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Command::new(env!("CARGO_BIN_EXE_client"))
        .args(["--out", record.to_str().unwrap(), "--timeout-ms", "2000", "--rate", "50"])
        .args(["--target", &format!("ireland={}", silent.local_addr().unwrap())])
        .spawn()
        .map(Running)
        .unwrap();
    until("twenty requests timed out", || fs::read_to_string(&record).unwrap_or_default().lines().count() >= 20);
    drop(client);
    let lines = lines(&record);
    assert!(lines.iter().all(|l| l["outcome"] == "timeout"));
    // Asked one after the other, the second would begin after the first had ended.
    assert!(lines[1]["start_ns"].as_u64() < lines[0]["end_ns"].as_u64());
}

#[test]
fn the_sink_writes_each_datagram_with_the_time_of_its_arrival() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("ireland.jsonl");
    let sink_at = free_udp();
    let _sink = Command::new(env!("CARGO_BIN_EXE_sink"))
        .args(["--listen", &sink_at.to_string(), "--out", out.to_str().unwrap()])
        .spawn()
        .map(Running)
        .unwrap();
    let _shop = shop(dir.path(), free_tcp(), sink_at);
    until("three arrivals", || fs::read_to_string(&out).unwrap_or_default().lines().count() >= 3);
    let sent = lines(&dir.path().join("ireland-shop-0.jsonl"));
    let arrived = &lines(&out)[0];
    let same = sent.iter().find(|l| l["seq"] == arrived["seq"]).unwrap();
    assert!(arrived["received_ns"].as_u64() >= same["boot_ns"].as_u64());
    assert_eq!(arrived["uid"], same["uid"]);
    assert!(arrived.get("boot_ns").is_none());
}

#[test]
fn a_missing_setting_is_named_with_its_remedy() {
    let output = Command::new(env!("CARGO_BIN_EXE_shop")).env_remove("SITE").env_remove("NODE").output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("NODE is not set: set it in the pod's env, or SITE"), "{text}");
    let output =
        Command::new(env!("CARGO_BIN_EXE_client")).args(["--out", "x", "--target", "ireland"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("--target ireland: it must be SITE=IP:PORT"), "{text}");
}

#[test]
fn the_judge_reads_every_line_that_the_programs_write() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["journal", "sink", "audit"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    let (listen, sink_at) = (free_tcp(), free_udp());
    let out = dir.path().join("sink/ireland.jsonl");
    let record = dir.path().join("client.jsonl");
    fs::write(dir.path().join("journal/epoch"), "2.3").unwrap();
    let running = [
        Running(
            Command::new(env!("CARGO_BIN_EXE_sink"))
                .args(["--listen", &sink_at.to_string(), "--out", out.to_str().unwrap()])
                .spawn()
                .unwrap(),
        ),
        shop(&dir.path().join("journal"), listen, sink_at),
        Running(
            Command::new(env!("CARGO_BIN_EXE_client"))
                .args(["--out", record.to_str().unwrap(), "--target", &format!("ireland={listen}")])
                .spawn()
                .unwrap(),
        ),
    ];
    let evidence = || Evidence::load(dir.path()).unwrap();
    until("an answer, an arrival and a line under the epoch", || {
        let evidence = evidence();
        evidence.client.iter().any(|l| l.is_ok())
            && evidence.sinks.get("ireland").is_some_and(|lines| !lines.is_empty())
            && evidence.journal.iter().any(|l| l.epoch.is_some_and(|e| e.to_string() == "2.3"))
    });
    drop(running);
    let problems = evidence().problems;
    let ours = |p: &&String| ["journal", "sink", "client"].iter().any(|file| p.starts_with(file));
    assert_eq!(problems.iter().find(ours), None, "{problems:?}");
}
