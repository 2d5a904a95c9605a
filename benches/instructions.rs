//! How many instructions each piece of work that every request pays takes, counted by Valgrind, and held to what
//! `benches/instructions.toml` records: `scripts/instructions` builds and runs this. Unlike time, the count hardly depends on
//! the machine and not on what else runs there, so that CI can fail when one grows. Beside that it holds what many policies,
//! routes and endpoints cost to what one costs ([`BOUNDS`]), whatever is recorded.
//!
//! Gungraun would do the counting too, by a second program of some 170 crates, with its records in the target directory.

mod work;

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fmt::Write;
use std::hint::black_box;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, iter, thread};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;

use work::Meter;

/// How often each piece runs for one count: enough for random choices and states to even out.
const RUNS: usize = 200;
/// The same of what makes an index for all policies, which takes as long as many thousand requests and draws nothing.
const RUNS_OF_INDEX: usize = 4;

/// By how much a count may be above what is recorded, in percent. Our own code is not optimised in this build, so that nothing
/// depends on what the compiler inlines: where it is, the same code has been seen to take 9 % more after changes elsewhere.
const TOLERANCE: u64 = 10;
/// By how much a count may be below what is recorded, in percent. It is to be recorded as well, or it could grow again unseen.
const STALE: u64 = 15;
/// By how many instructions a count may differ in any case: states of random generators and addresses are not the same each time,
/// and the shortest pieces have some 200 in all.
const INLINED: u64 = 64;

/// What each request pays beside its policies: its head is read, and its route selected.
const REQUEST: [&str; 2] = ["head/http1", "route/1"];
/// A request with a thousand policies, and with one, by what the policies look at.
const POLICIES: [&str; 5] =
    ["policy/", "policy/sources/", "policy/paths/", "policy/hosts/", "policy/tokens/"];
/// What the first may cost at the most, in percent of the second.
const MANY_POLICIES: u64 = 110;

/// A piece with many of something, the same with one or a few, and what the first may cost at the most, in percent of the second: of
/// the decision by itself, without the rest of a request.
const BOUNDS: [(&str, &str, u64); 9] = [
    ("policy/1000", "policy/1", 120),
    ("policy/sources/1000", "policy/sources/1", 125),
    ("policy/paths/1000", "policy/paths/1", 125),
    ("policy/hosts/1000", "policy/hosts/1", 125),
    ("policy/mixed/1000", "policy/mixed/8", 110),
    ("policy/tokens/1000", "policy/tokens/1", 110),
    ("route/1000", "route/1", 110),
    ("route/headers/1000", "route/headers/1", 120),
    ("balance/100", "balance/3", 110),
];

/// What Valgrind watches: [`count_these_instructions`], as the linker names it.
const COUNTED: &str = "*count_these_instructions*";

/// The head of the file with the records.
const ABOUT: &str = "\
# Instructions of one run of each piece in `benches/work`, by architecture: `scripts/instructions --record` writes them.
# A commit that makes a piece grow by more than the tolerance changes its number here, and says why.
";

/// Counts, by the piece's name.
type Counts = BTreeMap<String, u64>;

/// Instructions of what every request pays, against what is recorded
#[derive(Parser)]
struct Options {
    /// Record what is counted
    #[arg(long)]
    record: bool,
    /// Run one piece, for Valgrind to count (this program does so itself)
    #[arg(long, hide = true)]
    run: Option<String>,
    /// Where the records are
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.toml"))]
    file: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as recorded.
fn run(options: &Options) -> Result<bool> {
    if let Some(name) = &options.run {
        work::all(&mut Runs(name))?;
        return Ok(true);
    }
    let mut names = Names::default();
    work::all(&mut names)?;
    let counted = all(&names.0)?;
    let beyond = beyond(&counted)?;
    beyond.iter().for_each(|complaint| eprintln!("{complaint}"));
    let mut recorded = read(&options.file)?;
    if options.record {
        recorded.insert(ARCH.to_owned(), counted);
        fs::write(&options.file, written(&recorded)).context("write the records")?;
        return Ok(beyond.is_empty());
    }
    let recorded = recorded.remove(ARCH).with_context(|| {
        format!(
            "no counts are recorded for {ARCH}: record them with `scripts/instructions --record`"
        )
    })?;
    let (table, differences) = compared(&recorded, &counted);
    print!("{table}");
    if differences == 0 {
        return Ok(beyond.is_empty());
    }
    eprintln!(
        "{differences} counts are more than {TOLERANCE} % above those in benches/instructions.toml, or more than {STALE} % below. \
         Where that is meant, or comes with a new compiler, record them in the same commit: `scripts/instructions --record`."
    );
    Ok(false)
}

/// Gathers the names of all pieces, and measures none.
#[derive(Default)]
struct Names(Vec<String>);

impl Meter for Names {
    fn wants(&mut self, name: &str) -> bool {
        self.0.push(name.to_owned());
        false
    }

    fn measure<I, O>(&mut self, _: &str, _: impl Fn() -> I, _: impl Fn(I) -> O) {}
}

/// Runs one piece for Valgrind.
struct Runs<'a>(&'a str);

impl Meter for Runs<'_> {
    fn wants(&mut self, name: &str) -> bool {
        name == self.0
    }

    fn measure<I, O>(&mut self, _: &str, input: impl Fn() -> I, run: impl Fn(I) -> O) {
        // What is made once, such as the caches of regular expressions, is none of it.
        black_box(run(input()));
        let inputs: Vec<I> = (0..runs(self.0)).map(|_| input()).collect();
        let mut outputs = Vec::with_capacity(inputs.len());
        count_these_instructions(|| outputs.extend(inputs.into_iter().map(&run)));
        black_box(outputs);
    }
}

/// Valgrind counts while this runs, and at no other time.
#[inline(never)]
fn count_these_instructions(work: impl FnOnce()) {
    work();
    black_box(());
}

/// Counts all pieces, as many at once as there are processors: a count does not depend on what else runs.
fn all(names: &[String]) -> Result<Counts> {
    let next = AtomicUsize::new(0);
    let mine = || {
        let turns = iter::from_fn(|| names.get(next.fetch_add(1, Ordering::Relaxed)));
        turns.map(|name| Ok((name.clone(), count(name)?))).collect::<Result<Counts>>()
    };
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..processors).map(|_| scope.spawn(mine)).collect();
        let counted = threads.into_iter().map(|thread| {
            thread.join().map_err(|_| anyhow!("a thread that counts panicked")).flatten()
        });
        counted.collect::<Result<Vec<Counts>>>().map(|all| all.into_iter().flatten().collect())
    })
}

/// The instructions of one run of a piece, by this program in Valgrind.
fn count(name: &str) -> Result<u64> {
    let own = env::current_exe()?;
    let counts = own.with_extension(format!("{}.callgrind", name.replace('/', "-")));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(&own)
        .args(["--run", name])
        .output()
        .context("run valgrind (scripts/setup installs it)")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: valgrind: {}: {complaint}", output.status);
    let text = fs::read_to_string(&counts).with_context(|| format!("read {}", counts.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: u64 = total.context("no count of Callgrind's")?.trim().parse()?;
    ensure!(total > 0, "{name}: valgrind did not see {COUNTED}: {complaint}");
    Ok(total / runs(name) as u64)
}

fn runs(name: &str) -> usize {
    if name.starts_with("policy/index/") { RUNS_OF_INDEX } else { RUNS }
}

fn read(file: &Path) -> Result<BTreeMap<String, Counts>> {
    if !file.exists() {
        return Ok(BTreeMap::new());
    }
    let text = fs::read_to_string(file)?;
    toml::from_str(&text).with_context(|| format!("read {}", file.display()))
}

fn written(recorded: &BTreeMap<String, Counts>) -> String {
    let mut text = ABOUT.to_owned();
    for (architecture, counts) in recorded {
        text += &format!("\n[{architecture}]\n");
        for (name, count) in counts {
            text += &format!("\"{name}\" = {count}\n");
        }
    }
    text
}

/// A table of all pieces, and how many are not as recorded.
fn compared(recorded: &Counts, counted: &Counts) -> (String, usize) {
    let names = recorded.keys().chain(counted.keys().filter(|name| !recorded.contains_key(*name)));
    let (mut table, mut differences) = (String::new(), 0);
    for name in names {
        let verdict = match (recorded.get(name), counted.get(name)) {
            (Some(before), Some(now)) if is_near(*before, *now) => format!("{now:>9}"),
            (Some(before), Some(now)) => format!("{now:>9}, but {before} are recorded"),
            (None, Some(now)) => format!("{now:>9}, and none is recorded"),
            (_, None) => "          is recorded, but not measured any more".to_owned(),
        };
        differences += usize::from(verdict.len() > 9);
        // Writing to a string does not fail.
        let _ = writeln!(table, "{name:18}{verdict}");
    }
    (table, differences)
}

/// What costs more than [`BOUNDS`] permit. No tolerance: the counts of both come from one program.
fn beyond(counted: &Counts) -> Result<Vec<String>> {
    let count = |name: &str| {
        counted.get(name).copied().with_context(|| format!("{name} is bounded, and not measured"))
    };
    let mut complaints = Vec::new();
    let request = REQUEST.iter().map(|name| count(name)).sum::<Result<u64>>()?;
    for kind in POLICIES {
        let (many, one) = (format!("{kind}1000"), format!("{kind}1"));
        let (of_many, of_one) = (request + count(&many)?, request + count(&one)?);
        let percent = of_many as f64 * 100.0 / of_one as f64;
        println!("a request with {many:20} takes {percent:.1} % of one with {one}");
        if of_many * 100 > of_one * MANY_POLICIES {
            complaints.push(format!(
                "a request with {many} takes {of_many} instructions, more than {MANY_POLICIES} % of the {of_one} with {one}"
            ));
        }
    }
    for (many, one, percent) in BOUNDS {
        let (of_many, of_one) = (count(many)?, count(one)?);
        if of_many * 100 > of_one * percent {
            complaints.push(format!(
                "{many} takes {of_many} instructions, more than {percent} % of the {of_one} of {one}"
            ));
        }
    }
    Ok(complaints)
}

/// Whether a count is as recorded.
fn is_near(recorded: u64, counted: u64) -> bool {
    let tolerance = if counted > recorded { TOLERANCE } else { STALE };
    let difference = recorded.abs_diff(counted);
    difference <= INLINED || difference * 100 <= recorded * tolerance
}
