//! Progress of a lab that comes up, on standard error: a spinner for each step at a terminal, else a line for
//! each step that is done.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use seaway_lab::progress::Progress;

/// Shows steps as they begin and end.
pub(crate) struct Steps {
    bars: MultiProgress,
    open: HashMap<String, ProgressBar>,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self {
            bars: MultiProgress::new(),
            open: HashMap::new(),
        }
    }

    pub(crate) fn show(&mut self, progress: &Progress) {
        match progress {
            Progress::Begin { step } => {
                let bar = self.bars.add(ProgressBar::new_spinner());
                if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg}") {
                    bar.set_style(style);
                }
                bar.set_message(step.clone());
                bar.enable_steady_tick(Duration::from_millis(100));
                self.open.insert(step.clone(), bar);
            }
            Progress::Done {
                step,
                detail,
                millis,
            } => {
                if let Some(bar) = self.open.remove(step) {
                    bar.finish_and_clear();
                }
                self.line(&format!("  ✓ {step:<14} {detail}  ({millis} ms)"));
            }
            Progress::Ready { millis } => self.line(&format!("  ✓ ready in {millis} ms")),
            Progress::Failed { .. } => {}
        }
    }

    fn line(&self, line: &str) {
        self.bars.suspend(|| anstream::eprintln!("{line}"));
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        for bar in self.open.values() {
            bar.finish_and_clear();
        }
    }
}
