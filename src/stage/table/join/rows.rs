//! The rows of a join, made by several threads and handed on in order. Unaware of what is reported of them.

use std::io;
use std::ops::Range;

use rayon::prelude::*;

use super::layout::{Both, Layout};
use super::report::{Counts, Sides};
use super::{OnDuplicate, OneSided, Params};
use crate::stage::table::csv::Record;
use crate::stage::table::keys::{BATCH, Groups};

/// Keys whose rows one thread makes at a time.
const STRETCH: usize = 4096;

/// Neighbouring keys, and the text of their rows.
struct Made {
    text: Vec<u8>,
    counts: Counts,
}

/// Makes every row of the result and hands the text, in order, to `write`; the header is not part of it.
///
/// While a stretch of rows is written, the next ones are made: in memory are two stretches per thread.
pub(super) fn join(
    params: &Params,
    sides: Sides,
    layout: &Layout,
    write: &mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
) -> io::Result<Counts> {
    let maker = Maker { params, sides, layout };
    let stretches = |keys: usize| (0..keys).step_by(STRETCH).map(move |at| at..keys.min(at + STRETCH));
    let all: Vec<(bool, Range<usize>)> = (stretches(sides.left.len()).map(|keys| (true, keys)))
        .chain(stretches(sides.pairs.right_only.len()).map(|keys| (false, keys)))
        .collect();
    let mut counts = Counts { filled: vec![0; layout.values.len()], ..Counts::default() };
    let mut ready: Vec<Made> = Vec::new();
    for wave in all.chunks(rayon::current_num_threads()).chain([&[][..]]) {
        let (written, made) = rayon::join(
            || ready.iter().try_for_each(|made| write(&made.text)),
            || wave.par_iter().map(|(left, keys)| maker.make(*left, keys.clone())).collect(),
        );
        written?;
        ready = made;
        ready.iter_mut().for_each(|made| counts.add(&mut made.counts));
    }
    Ok(counts)
}

impl Counts {
    fn add(&mut self, other: &mut Self) {
        self.joined += other.joined;
        self.dropped.left += other.dropped.left;
        self.dropped.right += other.dropped.right;
        self.filled.iter_mut().zip(&other.filled).for_each(|(n, more)| *n += more);
        self.conflicts.append(&mut other.conflicts);
    }
}

struct Maker<'s> {
    params: &'s Params,
    sides: Sides<'s>,
    layout: &'s Layout,
}

impl<'s> Maker<'s> {
    /// The rows of keys of the left table, or of those that only the right one has.
    fn make(&self, left: bool, keys: Range<usize>) -> Made {
        let counts = Counts { filled: vec![0; self.layout.values.len()], ..Counts::default() };
        let mut made = Made { text: Vec::new(), counts };
        let (mut l, mut r) = (self.sides.left.table().record(), self.sides.right.table().record());
        let Sides { left: l_groups, right: r_groups, pairs, .. } = self.sides;
        for batch in keys.clone().step_by(BATCH).map(|first| first..keys.end.min(first + BATCH)) {
            let groups = batch.clone().filter_map(|key| match left {
                true => pairs.right_of[key],
                false => Some(pairs.right_only[key]),
            });
            let rows: Vec<u32> = groups.map(|group| r_groups.rows(group as usize)[0]).collect();
            r_groups.table().fetch(rows);
            for key in batch {
                match (left, pairs.right_of.get(key).copied().flatten()) {
                    (true, Some(group)) => self.matched(key, group as usize, &mut l, &mut r, &mut made),
                    (true, None) => self.alone(l_groups, key, &mut l, &mut made),
                    (false, _) => self.alone(r_groups, pairs.right_only[key] as usize, &mut r, &mut made),
                }
            }
        }
        made
    }

    fn matched(
        &self,
        l_group: usize,
        r_group: usize,
        l: &mut Record<'s>,
        r: &mut Record<'s>,
        made: &mut Made,
    ) {
        let Sides { left, right, .. } = self.sides;
        let (l_rows, r_rows) = (left.rows(l_group), right.rows(r_group));
        let l_picked = pick(l_rows, self.params.on_duplicate);
        let r_picked = pick(r_rows, self.params.on_duplicate);
        if l_picked.is_empty() || r_picked.is_empty() {
            return;
        }
        made.counts.dropped.left += (l_rows.len() - l_picked.len()) as u64;
        made.counts.dropped.right += (r_rows.len() - r_picked.len()) as u64;
        for l_row in l_picked {
            left.table().row(*l_row as usize).read_into(l);
            for r_row in r_picked {
                right.table().row(*r_row as usize).read_into(r);
                if !self.layout.agree(l, r) {
                    made.counts.conflicts.push([l_group as u32, *l_row, *r_row]);
                }
                self.emit(Both { left: Some(l), right: Some(r) }, made);
            }
        }
    }

    fn alone(&self, side: &'s Groups<'s>, group: usize, record: &mut Record<'s>, made: &mut Made) {
        let is_left = std::ptr::eq(side, self.sides.left);
        let rows = side.rows(group);
        let keep = self.params.one_sided == OneSided::Keep;
        let picked = if keep { pick(rows, self.params.on_duplicate) } else { &[] };
        let dropped = &mut made.counts.dropped;
        *(if is_left { &mut dropped.left } else { &mut dropped.right }) += (rows.len() - picked.len()) as u64;
        for row in picked {
            side.table().row(*row as usize).read_into(record);
            let (left, right) = if is_left { (Some(&*record), None) } else { (None, Some(&*record)) };
            self.emit(Both { left, right }, made);
        }
    }

    fn emit(&self, rows: Both, made: &mut Made) {
        made.counts.joined += 1;
        self.layout.count_filled(rows, &mut made.counts.filled);
        self.layout.write(rows, self.params.line_end, &mut made.text);
    }
}

/// The rows of a key that take part: none of several when the stage is about to fail for them.
fn pick(rows: &[u32], policy: OnDuplicate) -> &[u32] {
    match policy {
        OnDuplicate::Fail if rows.len() > 1 => &[],
        OnDuplicate::Fail | OnDuplicate::Cross => rows,
        OnDuplicate::First => &rows[..1],
        OnDuplicate::Last => &rows[rows.len() - 1..],
    }
}
