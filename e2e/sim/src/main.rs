//! `regent-sim`: runs schedules, and says which of them violate what.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use regent_sim::{Counts, Kind, Trace, run, sign_quickly};
use rustix::time::{ClockId, clock_gettime};

/// Runs the lease's real state machines under seeded schedules of faults.
#[derive(Parser)]
struct Args {
    /// Run this one schedule, and print the digest of its trace.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run these: A..B, without B.
    #[arg(long, value_parser = range, default_value = "0..1000")]
    seeds: std::ops::Range<u64>,
    /// What schedules are about; all kinds if it is not said.
    #[arg(long)]
    kind: Option<Kind>,
    /// Print what happens in the one schedule.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// How many run at a time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
}

fn range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let wrong = || format!("{text:?} is no range; say A..B, such as 0..20000");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    Ok(from.parse().map_err(|_| wrong())?..to.parse().map_err(|_| wrong())?)
}

fn main() -> ExitCode {
    let args = Args::parse();
    let kinds = args.kind.map_or(Kind::ALL.to_vec(), |kind| vec![kind]);
    let good = match args.seed {
        Some(seed) => kinds.iter().filter(|kind| !one(**kind, seed, args.trace)).count() == 0,
        None => many(&kinds, &args.seeds, args.jobs.max(1)),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(kind: Kind, seed: u64, prints: bool) -> bool {
    sign_quickly();
    let outcome = run(kind, seed, Trace::on(prints));
    println!("{kind:?} {seed}: trace {}, {}", outcome.trace.digest(), words(&outcome.counts));
    if let Some(violation) = &outcome.violation {
        println!("{kind:?} {seed}: {violation}");
    }
    outcome.violation.is_none()
}

fn words(counts: &Counts) -> String {
    counts.each().map(|(name, n)| format!("{n} {name}")).collect::<Vec<_>>().join(", ")
}

/// The processor's time, which others on the machine don't lengthen.
fn used() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}

fn many(kinds: &[Kind], seeds: &std::ops::Range<u64>, jobs: usize) -> bool {
    let began = used();
    let next = AtomicU64::new(seeds.start);
    let work = || {
        sign_quickly();
        let (mut counts, mut failed) = (Counts::default(), 0u64);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return (counts, failed);
            }
            for kind in kinds {
                let outcome = run(*kind, seed, Trace::off());
                counts += outcome.counts;
                if let Some(violation) = outcome.violation {
                    failed += 1;
                    println!("{kind:?} {seed}: {violation}");
                }
            }
        }
    };
    let done: Vec<(Counts, u64)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        // A worker that panicked has said why; its schedules count as failed.
        workers.into_iter().map(|w| w.join().unwrap_or((Counts::default(), 1))).collect()
    });
    report(kinds, seeds, used().saturating_sub(began), &done)
}

fn report(kinds: &[Kind], seeds: &std::ops::Range<u64>, used: Duration, done: &[(Counts, u64)]) -> bool {
    let schedules = seeds.end.saturating_sub(seeds.start) * kinds.len() as u64;
    let failed: u64 = done.iter().map(|(_, failed)| failed).sum();
    let seconds = used.as_secs_f64();
    let rate = schedules as f64 / seconds;
    println!("{schedules} schedules in {seconds:.1} s of a core, {rate:.1} a second; {failed} violate what must hold");
    println!("{}", words(&done.iter().map(|(counts, _)| *counts).sum()));
    if failed > 0 {
        println!("see one again with: regent-sim --kind KIND --seed SEED --trace");
    }
    failed == 0
}
