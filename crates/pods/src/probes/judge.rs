//! From answers to verdicts: thresholds, counted as the kubelet counts them. Pure.

use super::spec::{ProbeKind, ProbeSpec};

/// Counts answers of one probe of one container.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    successes: u32,
    failures: u32,
    last: Option<bool>,
    run: u32,
    verdict: Option<bool>,
}

impl Judge {
    pub(super) fn new(spec: &ProbeSpec) -> Self {
        let verdict = match spec.kind {
            // Not ready, and alive, until shown otherwise.
            ProbeKind::Readiness => Some(false),
            ProbeKind::Liveness => Some(true),
            ProbeKind::Startup => None,
        };
        Judge {
            successes: spec.successes,
            failures: spec.failures,
            last: None,
            run: 0,
            verdict,
        }
    }

    /// What is held now.
    pub(super) fn verdict(&self) -> Option<bool> {
        self.verdict
    }

    /// Counts an answer; the verdict if it is a new one.
    pub(super) fn count(&mut self, good: bool) -> Option<bool> {
        self.run = if self.last == Some(good) {
            self.run.saturating_add(1)
        } else {
            1
        };
        self.last = Some(good);
        let needed = if good { self.successes } else { self.failures };
        if self.run < needed || self.verdict == Some(good) {
            return None;
        }
        self.verdict = Some(good);
        Some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::ProbeAction;
    use std::time::Duration;

    fn judge(kind: ProbeKind, successes: u32, failures: u32) -> Judge {
        let second = Duration::from_secs(1);
        let action = ProbeAction::Exec(Vec::new());
        Judge::new(&ProbeSpec {
            kind,
            action,
            initial_delay: second,
            period: second,
            timeout: second,
            successes,
            failures,
        })
    }

    fn verdicts(mut judge: Judge, answers: &str) -> String {
        let mut said = String::new();
        for answer in answers.chars() {
            said.push(match judge.count(answer == '+') {
                Some(true) => '+',
                Some(false) => '-',
                None => '.',
            });
        }
        said
    }

    #[test]
    fn a_verdict_needs_its_answers_in_a_row() {
        for (kind, successes, failures, answers, said) in [
            (ProbeKind::Readiness, 1, 3, "+--+---+", "+.....-+"),
            (ProbeKind::Readiness, 2, 1, "++-+-++", ".+-...+"),
            (ProbeKind::Liveness, 1, 3, "+--+---", "......-"),
            (ProbeKind::Startup, 1, 3, "--+", "..+"),
            (ProbeKind::Startup, 1, 2, "--", ".-"),
        ] {
            assert_eq!(
                verdicts(judge(kind, successes, failures), answers),
                said,
                "{kind:?} {answers}"
            );
        }
    }
}
