//! nf_tables over a bare netlink socket: typed tables, chains, sets, elements and rules, written to the kernel
//! in one atomic [`Batch`] and read back through a [`Socket`]. The `nft` program is not involved.
//!
//! What a batch holds, and what the kernel answers, is the same set of messages; so [`Message`] decodes both,
//! and its text form is what tests compare and what errors name.
//!
//! Sources: `include/uapi/linux/netfilter/nf_tables.h`, `net/netfilter/nf_tables_api.c`; for what only `nft`
//! reads (user data that makes `nft list` print well), libnftnl `udata.h` and nftables `netlink.c`.

mod batch;
mod chain;
mod element;
mod expr;
mod message;
mod rule;
mod set;
mod socket;
mod table;
mod text;
mod userdata;
mod verdict;

pub use batch::Batch;
pub use chain::{BaseChain, Chain, ChainKind, Hook, Policy, priority};
pub use element::{Data, Element};
pub use expr::{
    CmpOp, CtDirection, CtKey, Dest, DynsetOp, Expr, FibFlags, FibResult, MetaKey, NatKind,
    NumgenKind, PayloadBase, Reg, Reject, nat_flags,
};
pub use message::{Change, Message, Object};
pub use rule::Rule;
pub use set::{DataType, Field, Set, SetData, TypeOf};
pub use socket::{DumpedTable, Socket};
pub use table::{Family, Table};
pub use verdict::Verdict;
