//! When to ask: one task for each probe of a running container.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::ask::{Answer, Asker};
use super::judge::Judge;
use super::spec::{ProbeAction, ProbeKind, ProbeSpec};

/// Until a container has started or got ready for the first time it is asked more often than its period says, so
/// that nobody waits ten seconds for a server that needs one. Only a success of these early questions counts.
const EARLY: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(600),
    Duration::from_secs(1),
];

/// What a probe has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// Of which container.
    pub container_id: String,
    /// Which probe.
    pub kind: ProbeKind,
    /// What is held now; `None` while a startup probe has not decided.
    pub verdict: Option<bool>,
    /// Why an answer was bad, for an Event: `Readiness probe failed: …`.
    pub complaint: Option<String>,
}

/// A running probe; dropping it ends it.
#[derive(Debug)]
pub struct Probing {
    _task: AbortOnDropHandle<()>,
}

impl Probing {
    /// Starts to probe a container that has been running for `age`.
    pub fn start(
        spec: ProbeSpec,
        asker: Asker,
        age: Duration,
        reports: mpsc::UnboundedSender<ProbeReport>,
    ) -> Self {
        Probing {
            _task: AbortOnDropHandle::new(tokio::spawn(probe(spec, asker, age, reports))),
        }
    }
}

async fn probe(
    spec: ProbeSpec,
    asker: Asker,
    age: Duration,
    reports: mpsc::UnboundedSender<ProbeReport>,
) {
    let mut judge = Judge::new(&spec);
    let send = |verdict, complaint| {
        let container_id = asker.container_id.clone();
        reports
            .send(ProbeReport {
                container_id,
                kind: spec.kind,
                verdict,
                complaint,
            })
            .is_ok()
    };
    if !send(judge.verdict(), None) {
        return;
    }
    tokio::time::sleep(spec.initial_delay.saturating_sub(age)).await;
    let mut due = Instant::now();
    loop {
        let answer = asker.ask(&spec.action, spec.timeout).await;
        let (new, complaint) = match &answer {
            Answer::Good => (judge.count(true), None),
            Answer::Bad(output) => (
                judge.count(false),
                Some(format!("{} probe failed: {output}", spec.kind.name())),
            ),
            Answer::Unknown(problem) => (
                None,
                Some(format!("{} probe errored: {problem}", spec.kind.name())),
            ),
        };
        if (new.is_some() || complaint.is_some()) && !send(judge.verdict(), complaint) {
            return;
        }
        let decided = match spec.kind {
            // A container that started has started; one that did not, or does not live, is going to be stopped.
            ProbeKind::Startup => judge.verdict().is_some(),
            ProbeKind::Liveness => judge.verdict() == Some(false),
            ProbeKind::Readiness => false,
        };
        if decided {
            return;
        }
        due = (due + spec.period).max(Instant::now());
        let eager = spec.kind != ProbeKind::Liveness
            && judge.verdict() != Some(true)
            && matches!(answer, Answer::Bad(_))
            && !matches!(spec.action, ProbeAction::Exec(_));
        if eager {
            for pause in EARLY {
                let at = Instant::now() + pause;
                if at + spec.timeout >= due {
                    break;
                }
                tokio::time::sleep_until(at).await;
                if asker.ask(&spec.action, spec.timeout).await == Answer::Good {
                    // Asked again at once by the loop, where it counts.
                    due = Instant::now();
                    break;
                }
            }
        }
        tokio::time::sleep_until(due).await;
    }
}
