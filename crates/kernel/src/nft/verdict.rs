//! Verdicts: what happens next to a packet.

use std::borrow::Cow;
use std::fmt;

use crate::wire::{Attr, Malformed, Writer};

/// `NFTA_DATA_VERDICT`.
pub(super) const DATA_VERDICT: u16 = 2;
const CODE: u16 = 1;
const CHAIN: u16 = 2;

/// What happens next to a packet (`enum nft_verdicts`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict<'a> {
    /// Let it through this base chain.
    Accept,
    /// Throw it away.
    Drop,
    /// Go on with the next rule.
    Continue,
    /// Go on behind the rule that jumped here; in a base chain, with its policy.
    Return,
    /// Evaluate that chain, then come back.
    Jump(Cow<'a, str>),
    /// Evaluate that chain and do not come back.
    Goto(Cow<'a, str>),
}

impl<'a> Verdict<'a> {
    /// Go to a chain.
    pub fn goto(chain: impl Into<Cow<'a, str>>) -> Self {
        Self::Goto(chain.into())
    }

    /// Jump to a chain.
    pub fn jump(chain: impl Into<Cow<'a, str>>) -> Self {
        Self::Jump(chain.into())
    }

    /// The same without borrowing.
    pub fn into_owned(self) -> Verdict<'static> {
        match self {
            Self::Accept => Verdict::Accept,
            Self::Drop => Verdict::Drop,
            Self::Continue => Verdict::Continue,
            Self::Return => Verdict::Return,
            Self::Jump(chain) => Verdict::Jump(chain.into_owned().into()),
            Self::Goto(chain) => Verdict::Goto(chain.into_owned().into()),
        }
    }

    const fn code(&self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Continue => -1,
            Self::Jump(_) => -3,
            Self::Goto(_) => -4,
            Self::Return => -5,
        }
    }

    /// Writes `NFTA_DATA_VERDICT`.
    pub(super) fn encode(&self, w: &mut Writer) {
        w.nest(DATA_VERDICT, |w| {
            w.put(CODE, &self.code().to_be_bytes());
            if let Self::Jump(chain) | Self::Goto(chain) = self {
                w.put_str(CHAIN, chain);
            }
        });
    }

    /// Reads `NFTA_DATA_VERDICT`.
    pub(super) fn decode(attribute: Attr<'_>) -> Result<Verdict<'static>, Malformed> {
        let inside = attribute.nested();
        let chain = || {
            Ok(Cow::Owned(
                inside.need(CHAIN, "chain of a verdict")?.text()?.to_owned(),
            ))
        };
        Ok(match inside.need(CODE, "verdict code")?.u32()? as i32 {
            0 => Verdict::Drop,
            1 => Verdict::Accept,
            -1 => Verdict::Continue,
            -3 => Verdict::Jump(chain()?),
            -4 => Verdict::Goto(chain()?),
            -5 => Verdict::Return,
            _ => return Err(Malformed("verdict code")),
        })
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Continue => f.write_str("continue"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}
