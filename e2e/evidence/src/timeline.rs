//! The picture: what each site did, and what the client saw, over time, in a terminal.
//!
//! ```text
//!   ireland works   ████████████████
//!   france works                              ███████████
//!   client          ████████████████××××××××××███████████
//!                   -1        a         b     c d        seconds since a
//! ```

use crate::event::Kind;
use crate::judge::{executed, story::Story, timings};
use crate::load::Evidence;
use crate::scenario::Scenario;
use crate::spans::Spans;

/// Widest line, in columns.
pub const COLUMNS_MAX: usize = 100;
const LABEL: usize = 17;
const CELLS: usize = COLUMNS_MAX - LABEL - 3;
const BEFORE_NS: u64 = 2_000_000_000;
const AFTER_NS: u64 = 5_000_000_000;

/// Draws the timeline of one group; `None` when no fault is known to draw it around.
pub fn draw(evidence: &Evidence, group: &str, scenario: Option<Scenario>, colour: bool) -> Option<String> {
    let story = Story::new(evidence, group, scenario);
    let first = story.faults.first()?.event;
    let moments = labelled(&story);
    let last_ns = moments.iter().map(|(at, _)| *at).max()?;
    let recorded = evidence.client.iter().map(|l| l.end_ns).max().unwrap_or(last_ns);
    let scale = Scale::new(
        first.boot_ns.saturating_sub(BEFORE_NS),
        recorded.clamp(last_ns, last_ns.saturating_add(AFTER_NS)),
        first.boot_ns,
    );
    let name = scenario.map_or("", Scenario::word);
    let mut lines = vec![format!(
        "{group}  {name}  █ runs, answered  × not answered  ▒ gate open  · closed  one column: {:.0} ms",
        scale.cell_ns as f64 / 1e6
    )];
    lines.extend(lanes(&story, &scale, colour));
    lines.push(row("", &axis(&scale)));
    lines.extend(marks(&moments, &scale));
    Some(lines.join("\n") + "\n")
}

/// Time in cells.
struct Scale {
    from_ns: u64,
    cell_ns: u64,
    zero_ns: u64,
}

impl Scale {
    fn new(from_ns: u64, to_ns: u64, zero_ns: u64) -> Scale {
        let cell_ns = to_ns.saturating_sub(from_ns).div_ceil(CELLS as u64).max(1_000_000);
        Scale { from_ns, cell_ns, zero_ns }
    }

    fn cell(&self, at_ns: u64) -> Option<usize> {
        let cell = usize::try_from(at_ns.checked_sub(self.from_ns)? / self.cell_ns).ok()?;
        // The end of the recording closes the last cell.
        (cell <= CELLS).then(|| cell.min(CELLS - 1))
    }

    fn span(&self, cell: usize) -> (u64, u64) {
        let from = self.from_ns + cell as u64 * self.cell_ns;
        (from, from + self.cell_ns)
    }
}

fn lanes(story: &Story, scale: &Scale, colour: bool) -> Vec<String> {
    let runs = executed(story);
    let mut sites: Vec<&str> = story.sites().into_iter().collect();
    sites.sort_by_key(|site| story.lines_at(site).map(|l| l.boot_ns).min());
    let mut lines = Vec::new();
    for site in sites {
        let empty = Spans::default();
        let run = runs.get(site).unwrap_or(&empty);
        let works = |cell| if touches(run, scale.span(cell)) { Cell::Good } else { Cell::Empty };
        lines.push(row(&format!("{site} works"), &paint(works, colour)));
        let gate = gate_open(story, site);
        let open = |cell| if touches(&gate, scale.span(cell)) { Cell::Open } else { Cell::Closed };
        lines.push(row(&format!("{site} gate"), &paint(open, colour)));
    }
    let mut seen = [Cell::Empty; CELLS];
    for line in &story.evidence.client {
        if let Some(cell) = scale.cell(line.end_ns).and_then(|cell| seen.get_mut(cell)) {
            let now = if line.is_ok() { Cell::Good } else { Cell::Bad };
            *cell = (*cell).max(now);
        }
    }
    let answered = |cell: usize| seen.get(cell).copied().unwrap_or(Cell::Empty);
    lines.push(row("client answered", &paint(answered, colour)));
    lines
}

/// When a site's gates let programs run: from its first `gate_opened` (or from the start, where
/// the group ran before the fault) until its leases ended, and again from a thaw.
fn gate_open(story: &Story, site: &str) -> Spans {
    let ran_before = story.faults.first().is_some_and(|f| f.from == Some(site));
    let mut open_since = ran_before.then_some(0);
    let mut open = Spans::default();
    for event in story.events.iter().filter(|e| e.site == site) {
        match event.event {
            Kind::GateOpened | Kind::Thawed => open_since = open_since.or(Some(event.boot_ns)),
            Kind::LeaseEnd => {
                if let Some(since) = open_since.take() {
                    open = open.union(&Spans::one(since, event.boot_ns));
                }
            }
            _ => {}
        }
    }
    match open_since {
        Some(since) => open.union(&Spans::one(since, u64::MAX)),
        None => open,
    }
}

fn touches(spans: &Spans, (from, to): (u64, u64)) -> bool {
    spans.intervals().iter().any(|(a, b)| *a < to && *b > from)
}

/// What a cell shows; the greater wins where two fall together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    Empty,
    Closed,
    Open,
    Bad,
    Good,
}

fn paint(of: impl Fn(usize) -> Cell, colour: bool) -> String {
    let mut text = String::new();
    let mut previous = Cell::Empty;
    for cell in (0..CELLS).map(of) {
        if colour && cell != previous {
            text.push_str(match cell {
                Cell::Empty => "\x1b[0m",
                Cell::Closed => "\x1b[0;2m",
                Cell::Open => "\x1b[0;36m",
                Cell::Bad => "\x1b[0;31m",
                Cell::Good => "\x1b[0;32m",
            });
        }
        previous = cell;
        text.push(match cell {
            Cell::Empty => ' ',
            Cell::Closed => '·',
            Cell::Open => '▒',
            Cell::Bad => '×',
            Cell::Good => '█',
        });
    }
    if colour {
        text.push_str("\x1b[0m");
    }
    text
}

fn row(label: &str, cells: &str) -> String {
    let label: String = label.chars().take(LABEL).collect();
    format!("{label:>LABEL$}  {cells}").trim_end().to_owned()
}

/// Whole seconds since the fault, at a step that leaves room for the figures.
fn axis(scale: &Scale) -> String {
    let room = 8 * scale.cell_ns;
    let steps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600].map(|s: u64| s * 1_000_000_000);
    let step = steps.into_iter().find(|s| *s >= room).unwrap_or(3_600_000_000_000);
    let mut cells = vec![' '; CELLS];
    let end = scale.span(CELLS - 1).1;
    let before = scale.zero_ns.saturating_sub(scale.from_ns) / step;
    let mut at = scale.zero_ns.saturating_sub(before * step);
    while at < end {
        let seconds = (i128::from(at) - i128::from(scale.zero_ns)) / 1_000_000_000;
        let figure = format!("|{seconds} s");
        if let Some(cell) = scale.cell(at).filter(|c| c + figure.len() <= CELLS) {
            for (slot, c) in cells.iter_mut().skip(cell).zip(figure.chars()) {
                *slot = c;
            }
        }
        at += step;
    }
    cells.into_iter().collect()
}

/// The moments that the legend names: of each fault, the steps that came of it.
fn labelled(story: &Story) -> Vec<(u64, String)> {
    let mut moments = Vec::new();
    for fault in &story.faults {
        let name = |what: &str, site: &str| format!("{what} {site}");
        moments.push((fault.event.boot_ns, name(&fault.event.event.word(), &fault.event.site)));
        if let (Some(at), Some(from)) = (fault.last_lease_end_ns(), fault.from) {
            moments.push((at, name("last lease_end", from)));
        }
        for kind in [Kind::Heal, Kind::Thawed] {
            let word = kind.word();
            if let Some(e) = story.of(kind).find(|e| fault.covers(e.boot_ns)) {
                moments.push((e.boot_ns, name(&word, &e.site)));
            }
        }
        let steps = [Kind::Eligible, Kind::GateOpened, Kind::FirstStarted, Kind::AllReady];
        let steps = steps.into_iter().filter_map(|kind| timings::moment_at_new(story, fault, kind));
        for e in fault.change.into_iter().chain(steps) {
            let epoch = e.epoch.filter(|_| e.event == Kind::Certificate);
            let epoch = epoch.map_or(String::new(), |epoch| format!(" epoch {epoch}"));
            moments.push((e.boot_ns, name(&e.event.word(), &e.site) + &epoch));
        }
    }
    moments.sort();
    moments
}

/// Rows of letters under the axis, and what each letter means.
fn marks(moments: &[(u64, String)], scale: &Scale) -> Vec<String> {
    let mut rows: Vec<Vec<char>> = Vec::new();
    let mut legend = Vec::new();
    for ((at, what), letter) in moments.iter().zip('a'..='z') {
        let ms = (i128::from(*at) - i128::from(scale.zero_ns)) / 1_000_000;
        legend.push(format!("{:>LABEL$}  {:>7}.{:03} s  {what}", letter, ms / 1000, ms % 1000));
        let Some(cell) = scale.cell(*at) else { continue };
        let free = rows.iter().position(|row| row.get(cell) == Some(&' '));
        let index = free.unwrap_or_else(|| {
            rows.push(vec![' '; CELLS]);
            rows.len() - 1
        });
        if let Some(slot) = rows.get_mut(index).and_then(|row| row.get_mut(cell)) {
            *slot = letter;
        }
    }
    let rows = rows.into_iter().map(|r| row("", &r.into_iter().collect::<String>()));
    rows.chain(legend).map(|line| line.chars().take(COLUMNS_MAX).collect()).collect()
}
