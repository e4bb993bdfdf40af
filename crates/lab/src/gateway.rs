//! The way out of a lab, only with `--internet`: the host passes its packets on under its own address.

use std::path::PathBuf;

use ipnet::Ipv4Net;
use seaway_kernel::netns::NetNs;
use seaway_kernel::nft::{
    Batch, Chain, ChainKind, CmpOp, Expr, Family, Hook, MetaKey, Reg, Rule, Socket, Table, priority,
};
use seaway_kernel::sysctl;

use crate::error::Error;
use crate::fabric::host_link;
use crate::paths::{run_dir, running_names};
use crate::running::{Running, read_json, write_json};
use crate::spec::LabSpec;

/// Bytes of the IPv4 header before the source address (RFC 791).
const SOURCE_OFFSET: u32 = 12;
const FORWARDING: &str = "ipv4/ip_forward";

fn table_name(lab: &str) -> String {
    format!("seaway-{lab}")
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::step("opening the way to the internet", error)
}

/// Remembers what `ip_forward` of this host was before the first lab with `--internet`.
fn memory(host: &NetNs) -> Result<PathBuf, Error> {
    let (_, inode) = host.identity().map_err(failed)?;
    Ok(run_dir().join(format!("forwarding-before-{inode}")))
}

/// Lets the lab out.
///
/// # Errors
/// What the kernel refused.
pub(crate) fn open(spec: &LabSpec, host: &NetNs) -> Result<(), Error> {
    let before = sysctl::read(host, FORWARDING).map_err(failed)?;
    if before == "0" {
        std::fs::create_dir_all(run_dir()).map_err(Error::file("create", run_dir()))?;
        write_json(&memory(host)?, &before)?;
        sysctl::enable_forwarding(host).map_err(failed)?;
    }
    let batch = masquerade(&spec.name, spec.node_cidr);
    host.run(|| Socket::open()?.commit(batch))
        .map_err(failed)?
        .map_err(failed)
}

/// Source addresses of the lab's nodes (Pods leave under their node's) become the host's own, except towards the lab.
fn masquerade(lab: &str, nodes: Ipv4Net) -> Batch {
    let (family, table, chain) = (Family::Ip, table_name(lab), "postrouting");
    let address = Reg::FIRST;
    let mut batch = Batch::new();
    batch.add_table(
        &Table::new(family, table.clone()).with_comment(format!("the way out of Seaway lab {lab}")),
    );
    batch.add_chain(&Chain::base(
        family,
        table.clone(),
        chain,
        ChainKind::Nat,
        Hook::Postrouting,
        priority::SRCNAT,
    ));
    // Interface names are compared as the kernel keeps them: 16 bytes, padded with NUL.
    let mut link = host_link(lab).into_bytes();
    link.resize(16, 0);
    let rule = Rule::new(
        family,
        table,
        chain,
        [
            Expr::network(SOURCE_OFFSET, 4, address),
            Expr::Bitwise {
                source: address,
                dest: address,
                mask: nodes.netmask().octets().to_vec(),
                xor: vec![0; 4],
            },
            Expr::equals(address, nodes.network().octets()),
            Expr::Meta {
                key: MetaKey::Oifname,
                dest: address,
            },
            Expr::Cmp {
                op: CmpOp::Neq,
                source: address,
                value: link,
            },
            Expr::Masquerade { flags: 0 },
        ],
    );
    batch.add_rule(&rule);
    batch
}

/// Closes the way out; `ip_forward` becomes what it was when the last lab with a way out goes.
///
/// # Errors
/// What the kernel refused.
pub(crate) fn close(spec: &LabSpec, host: &NetNs) -> Result<(), Error> {
    if !spec.internet {
        return Ok(());
    }
    let name = table_name(&spec.name);
    host.run(|| -> seaway_kernel::Result<()> {
        let mut socket = Socket::open()?;
        if socket
            .tables()?
            .iter()
            .any(|table| table.family == Family::Ip && table.name == name)
        {
            let mut batch = Batch::new();
            batch.delete_table(Family::Ip, &name);
            socket.commit(batch)?;
        }
        Ok(())
    })
    .map_err(failed)?
    .map_err(failed)?;
    let others = running_names()
        .into_iter()
        .filter(|lab| *lab != spec.name)
        .any(|lab| {
            let path = run_dir().join(lab).join("lab.json");
            matches!(read_json::<Running>(&path), Ok(Some(running)) if running.spec.internet)
        });
    if others {
        return Ok(());
    }
    let memory = memory(host)?;
    if let Some(before) = read_json::<String>(&memory)? {
        sysctl::set(host, &[(FORWARDING, &before)]).map_err(failed)?;
        std::fs::remove_file(&memory).map_err(Error::file("remove", &memory))?;
    }
    Ok(())
}
