//! The three processes of an application, and their supervisor: whoever ends is started again, and whoever ends in another way than
//! it may is noted.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use finflow_actors::PartitionStatus;
use finflow_actors::socket::Client;
use tokio::runtime::Runtime;

use crate::form::Form;
use crate::process::{Process, Service, eventually};
use crate::proxy::Cut;
use crate::wires::Wires;

pub(crate) const NAMES: [&str; 3] = ["one", "two", "three"];
pub(crate) const PARTITIONS: u32 = 12;
/// How a process ends that must not go on.
const TEMPORARY: i32 = 75;
/// How long a process may take to end that is told to, or has woken up replaced.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// How long a process may take to tell how the partitions are.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
const LOGGED_LINES: usize = 60;

/// What a process is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Up,
    /// Stopped short until then.
    Paused {
        until: Instant,
        has_run: Ran,
    },
    /// Goes on since then, and has to notice that it was replaced.
    Woken(Instant),
    /// Killed, and started again then.
    Away(Instant),
    /// Cut off from the broker until then.
    CutOff(Instant),
    /// Was asked to stop.
    Stopping(Instant),
}

/// Whether a process has run partitions since it began, as far as looks have told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ran {
    /// A look has found it running some. Who answers so has started, and has to notice when it stands still, whatever it runs by then.
    Partitions,
    /// No look has found it running any, and the latest has found all of them with others.
    Nothing,
    /// The latest look could not tell, or there was none since it began.
    Unknown,
}

impl Ran {
    /// What is known after a further look.
    fn after(self, runs_some: bool, all_are_told: bool) -> Ran {
        match (self, runs_some, all_are_told) {
            (Ran::Partitions, ..) | (_, true, _) => Ran::Partitions,
            (_, false, true) => Ran::Nothing,
            (_, false, false) => Ran::Unknown,
        }
    }
}

struct Member {
    /// `None` while it is away.
    service: Option<Service>,
    life: Life,
    /// Of this service, not of an earlier one.
    has_run: Ran,
}

/// What has become of a process since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// It ended after it woke up, as one that was replaced must, and was started again.
    Fenced,
    /// It was started again, after it had been away; or it can reach the broker again.
    Returned,
    /// It ended although nobody had asked it to, as a process may that cannot go on, and was started again.
    Fell,
}

pub(crate) struct Application<'a> {
    dir: &'a Path,
    pub(crate) brokers: String,
    /// Where each process asks the brokers instead, if it has a wire of its own.
    own_brokers: BTreeMap<&'static str, String>,
    wires: Option<Wires>,
    pub(crate) prefix: &'a str,
    form: Form,
    settings: Vec<&'a str>,
    runtime: Runtime,
    members: BTreeMap<&'static str, Member>,
    /// Who runs which partition, as it was known last.
    owners: BTreeMap<u32, &'static str>,
    /// Who ran which partition last, also where nobody does at the moment.
    ran: BTreeMap<u32, &'static str>,
    /// How often a process was stopped short, by what was known of it.
    pauses: BTreeMap<Ran, usize>,
    /// How many of those that had run partitions have ended by themselves when they woke up.
    pub(crate) fenced: usize,
    /// How often a partition was found in another process than before, by what it went on from there.
    pub(crate) moved: BTreeMap<String, usize>,
    /// Everything that must not be.
    pub(crate) faults: Vec<String>,
}

impl<'a> Application<'a> {
    pub(crate) fn start(
        dir: &'a Path,
        brokers: String,
        prefix: &'a str,
        (form, more): (Form, &[&'a str]),
        wires: Option<Wires>,
    ) -> Application<'a> {
        let settings = more.to_vec();
        let own_brokers = wires.as_ref().map(Wires::addresses).unwrap_or_default();
        let runtime = Runtime::new().expect("a runtime");
        let mut application = Application {
            dir,
            brokers,
            own_brokers,
            wires,
            prefix,
            form,
            settings,
            runtime,
            members: BTreeMap::new(),
            owners: BTreeMap::new(),
            ran: BTreeMap::new(),
            pauses: BTreeMap::new(),
            fenced: 0,
            moved: BTreeMap::new(),
            faults: Vec::new(),
        };
        let made = application.process("one").finflow(&["topics", "create"]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        for name in NAMES {
            let service = application.begin(name);
            application.members.insert(name, Member { service: Some(service), life: Life::Up, has_run: Ran::Unknown });
        }
        application.all_run();
        // What they deal out among themselves as they begin is no fault's.
        application.moved.clear();
        application
    }

    pub(crate) fn process(&self, name: &'a str) -> Process<'_> {
        let brokers = self.own_brokers.get(name).unwrap_or(&self.brokers);
        let (partitions, settings) = (Some(PARTITIONS), &self.settings);
        Process { dir: self.dir, name, brokers, prefix: self.prefix, secret: "s", partitions, settings }
    }

    fn begin(&self, name: &'static str) -> Service {
        let standbys = format!("standby_replicas={}", self.form.standby_replicas());
        self.process(name).begin(self.form.lanes(name), &["--set", &standbys])
    }

    /// Waits until all processes are up and share all partitions, and notes who has which.
    pub(crate) fn all_run(&mut self) {
        eventually(|| {
            self.look(Instant::now());
            self.know_owners();
            let is_up = self.members.values().all(|member| member.life == Life::Up);
            let is_so = is_up && self.owners.len() == PARTITIONS as usize && self.is_shared();
            if is_so { Ok(()) } else { Err(format!("{:?}\n{}", self.owners, self.logged())) }
        });
    }

    /// Whether every process has been seen to run partitions since it began, and has some as it was known last.
    pub(crate) fn is_shared(&self) -> bool {
        self.members.iter().all(|(name, member)| member.has_run == Ran::Partitions && !self.partitions_of(name).is_empty())
    }

    /// The processes that run and have not been asked to do otherwise.
    pub(crate) fn up(&self) -> Vec<&'static str> {
        self.members.iter().filter(|(_, member)| member.life == Life::Up).map(|(name, _)| *name).collect()
    }

    /// The partitions that a process runs, as it was known last.
    pub(crate) fn partitions_of(&self, name: &str) -> Vec<u32> {
        Application::of(&self.owners, name)
    }

    /// The partitions that a process was the last to run: what becomes of it concerns them also while it does not run them again yet.
    pub(crate) fn concerned_by(&self, name: &str) -> Vec<u32> {
        Application::of(&self.ran, name)
    }

    fn of(owners: &BTreeMap<u32, &'static str>, name: &str) -> Vec<u32> {
        owners.iter().filter(|(_, owner)| **owner == name).map(|(partition, _)| *partition).collect()
    }

    /// Who runs a partition, as it was known last.
    pub(crate) fn owner(&self, partition: u32) -> Option<&'static str> {
        self.owners.get(&partition).copied()
    }

    /// How all partitions are, as any of the processes tells it; `None` where nobody answers soon.
    fn status(&self) -> Option<Vec<PartitionStatus>> {
        self.up().into_iter().find_map(|name| {
            let dir = self.process(name).data_dir();
            let ask = async move { Client::connect(&dir).await?.status().await.ok() };
            self.runtime.block_on(async { tokio::time::timeout(STATUS_TIMEOUT, ask).await.ok().flatten() })
        })
    }

    /// Notes who runs what, and every halt. Where nobody answers, the owners that were known last stand.
    pub(crate) fn know_owners(&mut self) {
        let Some(status) = self.status() else { return self.note_runs(&BTreeMap::new()) };
        let prefix = self.prefix;
        let name_of = |lane: &str| NAMES.into_iter().find(|name| lane.starts_with(&format!("{prefix}-{name}-lane-")));
        let mut owners = BTreeMap::new();
        for of in status.iter().filter(|of| of.state == "running") {
            let Some(name) = name_of(&of.lane) else { continue };
            owners.insert(of.partition, name);
            if self.ran.insert(of.partition, name).is_some_and(|before| before != name) {
                *self.moved.entry(of.restored_from.clone()).or_default() += 1;
            }
        }
        for (id, cause) in status.iter().filter_map(|of| Some((of.partition, of.cause.as_ref()?))) {
            self.note(format!("partition {id} is halted: {cause}"));
        }
        self.note_runs(&owners);
        self.owners = owners;
    }

    /// Notes of every process what a look tells that has found these owners. Each owner has said so itself, in its present life: who is
    /// missing ran nothing only if all partitions were found.
    fn note_runs(&mut self, found: &BTreeMap<u32, &'static str>) {
        let all_are_told = found.len() == PARTITIONS as usize;
        for (name, member) in &mut self.members {
            member.has_run = member.has_run.after(found.values().any(|owner| owner == name), all_are_told);
        }
    }

    fn note(&mut self, fault: String) {
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Looks after every process, and tells what has become of them.
    pub(crate) fn look(&mut self, now: Instant) -> Vec<(&'static str, News)> {
        let mut all = Vec::new();
        for name in NAMES {
            let Some(mut member) = self.members.remove(name) else { continue };
            let ended = member.service.as_mut().and_then(|service| service.0.try_wait().expect("a child"));
            let news = self.follow(name, &mut member, ended, now);
            self.members.insert(name, member);
            all.extend(news.map(|news| (name, news)));
        }
        all
    }

    fn follow(&mut self, name: &'static str, member: &mut Member, ended: Option<ExitStatus>, now: Instant) -> Option<News> {
        let news = match (member.life, ended) {
            (Life::Paused { until, has_run }, None) if until <= now => {
                member.service.iter().for_each(|service| service.signal("CONT"));
                // One that may just have begun need not notice: it may go on, and may end as whoever is up.
                let must_end = has_run == Ran::Partitions;
                member.life = if must_end { Life::Woken(now) } else { Life::Up };
                return (!must_end).then_some(News::Returned);
            }
            (Life::CutOff(until), None) if until <= now => {
                self.wire(name, None);
                // It comes back by itself.
                member.life = Life::Up;
                return Some(News::Returned);
            }
            (Life::Away(until), _) if until <= now => News::Returned,
            (Life::Woken(_), Some(status)) if status.code() == Some(TEMPORARY) => News::Fenced,
            (Life::Stopping(_), Some(status)) if status.success() => News::Returned,
            (Life::Up | Life::CutOff(_), Some(status)) if status.code() == Some(TEMPORARY) => News::Fell,
            (_, Some(status)) => {
                let how = status.code().map_or_else(|| format!("signal {:?}", status.signal()), |code| format!("code {code}"));
                self.note(format!("{name} ended with {how} while it was {:?}", member.life));
                News::Fell
            }
            (Life::Woken(since) | Life::Stopping(since), None) if ENDS_WITHIN < now - since => {
                self.note(format!("{name} has not ended within {ENDS_WITHIN:?}: {:?}", member.life));
                News::Fell
            }
            _ => return None,
        };
        if news == News::Fenced {
            self.fenced += 1;
        }
        if news == News::Fell {
            let log = self.process(name).logged();
            println!("    {name} fell: {}", log.lines().rev().find(|line| !line.is_empty()).unwrap_or("without a word"));
        }
        self.wire(name, None);
        // The former one is gone before the next one begins.
        member.service = None;
        *member = Member { service: Some(self.begin(name)), life: Life::Up, has_run: Ran::Unknown };
        Some(news)
    }

    /// Kills a process; it is started again then.
    pub(crate) fn kill(&mut self, name: &'static str, again: Instant) {
        self.members.insert(name, Member { service: None, life: Life::Away(again), has_run: Ran::Unknown });
    }

    /// Stops a process short until then.
    pub(crate) fn pause(&mut self, name: &'static str, until: Instant) {
        let has_run = self.members.get(name).map_or(Ran::Unknown, |member| member.has_run);
        *self.pauses.entry(has_run).or_default() += 1;
        self.tell(name, "STOP", Life::Paused { until, has_run });
    }

    /// Who was stopped short, in words.
    pub(crate) fn pauses(&self) -> String {
        let of = |has_run: Ran| self.pauses.get(&has_run).copied().unwrap_or_default();
        let (some, none, unknown, fenced) = (of(Ran::Partitions), of(Ran::Nothing), of(Ran::Unknown), self.fenced);
        format!("paused: {some} that had run partitions, {fenced} ended themselves; {none} that had not; {unknown} unknown")
    }

    /// Cuts a process off from the broker until then.
    pub(crate) fn cut_off(&mut self, name: &'static str, how: Cut, until: Instant) {
        self.wire(name, Some(how));
        if let Some(member) = self.members.get_mut(name) {
            member.life = Life::CutOff(until);
        }
    }

    fn wire(&self, name: &str, how: Option<Cut>) {
        self.wires.iter().for_each(|wires| wires.cut(name, how));
    }

    /// Asks a process to stop; it is started again once it has.
    pub(crate) fn stop(&mut self, name: &'static str, now: Instant) {
        self.tell(name, "TERM", Life::Stopping(now));
    }

    fn tell(&mut self, name: &'static str, signal: &str, life: Life) {
        if let Some(member) = self.members.get_mut(name) {
            member.service.iter().for_each(|service| service.signal(signal));
            member.life = life;
        }
    }

    /// Stops all processes for good.
    pub(crate) fn end(&mut self) {
        for (name, member) in std::mem::take(&mut self.members) {
            let Some(mut service) = member.service else { continue };
            service.signal("TERM");
            let code = service.ended();
            if code != Some(0) {
                self.note(format!("{name} ended with {code:?} when it was asked to stop"));
            }
        }
    }

    /// The last lines that each process has logged.
    pub(crate) fn logged(&self) -> String {
        let of = |name| {
            let log = self.process(name).logged();
            let lines: Vec<&str> = log.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(LOGGED_LINES)..].join("\n"))
        };
        NAMES.into_iter().map(of).collect()
    }
}
