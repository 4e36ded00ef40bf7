//! What a selection has more of than everything else.

use super::key::Key;
use super::top::{Facets, Limits};
use crate::column::Column;
use crate::row::Row;

/// Counts the values of columns in a selection and in a baseline, and tells where they differ.
#[derive(Clone, Debug)]
pub struct Compare {
    selection: Facets,
    baseline: Facets,
    selected: u64,
    compared: u64,
}

/// A value that the selection has more of, or less.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// The column.
    pub column: Column,
    /// The value.
    pub key: Key,
    /// Events of the selection that have it.
    pub selection: u64,
    /// Events of the baseline that have it.
    pub baseline: u64,
    /// The share of the selection, 0 to 1.
    pub selection_share: f64,
    /// The share of the baseline, 0 to 1.
    pub baseline_share: f64,
    /// How many times larger the selection's share is; `None` if the baseline never has the value.
    pub lift: Option<f64>,
}

impl Compare {
    /// Counts nothing yet; the limits are those of each column, in both.
    #[must_use]
    pub fn new(columns: impl IntoIterator<Item = Column>, limits: Limits) -> Self {
        let facets = Facets::new(columns, limits);
        Self {
            selection: facets.clone(),
            baseline: facets,
            selected: 0,
            compared: 0,
        }
    }

    /// Counts a row of the selection. A row that belongs to both is to be added to both.
    pub fn add_selection(&mut self, row: &Row<'_>) {
        self.selected = self.selected.saturating_add(1);
        self.selection.add(row);
    }

    /// Counts a row of the baseline.
    pub fn add_baseline(&mut self, row: &Row<'_>) {
        self.compared = self.compared.saturating_add(1);
        self.baseline.add(row);
    }

    /// The counts of the selection, and how many events it has, for values that come from elsewhere.
    pub const fn selection_mut(&mut self) -> (&mut Facets, &mut u64) {
        (&mut self.selection, &mut self.selected)
    }

    /// The same of the baseline.
    pub const fn baseline_mut(&mut self) -> (&mut Facets, &mut u64) {
        (&mut self.baseline, &mut self.compared)
    }

    /// Adds what another counted of the same columns.
    pub fn merge(&mut self, other: &Self) {
        self.selection.merge(&other.selection);
        self.baseline.merge(&other.baseline);
        self.selected = self.selected.saturating_add(other.selected);
        self.compared = self.compared.saturating_add(other.compared);
    }

    /// Events of the selection and of the baseline.
    #[must_use]
    pub const fn events(&self) -> (u64, u64) {
        (self.selected, self.compared)
    }

    /// Whether every value of each column was told apart.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        let mut columns = self.selection.columns().iter().chain(self.baseline.columns());
        columns.all(|(_, top)| top.is_exact())
    }

    /// The `most` largest differences of share: the selection's surplus first, by its size, equal ones in
    /// the order of columns and keys.
    #[must_use]
    pub fn finish(&self, most: usize) -> Vec<Difference> {
        let share = |count: u64, of: u64| if of == 0 { 0.0 } else { as_f64(count) / as_f64(of) };
        let mut found = Vec::new();
        for ((column, selection), (_, baseline)) in
            self.selection.columns().iter().zip(self.baseline.columns())
        {
            let only_baseline = baseline
                .entries()
                .iter()
                .filter(|(key, _)| selection.count_of(key) == 0)
                .map(|(key, _)| (key, 0));
            let selected = selection.entries().iter().map(|(key, count)| (key, *count));
            for (key, count) in selected.chain(only_baseline) {
                let other = baseline.count_of(key);
                let (own_share, other_share) = (share(count, self.selected), share(other, self.compared));
                found.push(Difference {
                    column: column.clone(),
                    key: key.clone(),
                    selection: count,
                    baseline: other,
                    selection_share: own_share,
                    baseline_share: other_share,
                    lift: (other > 0).then(|| own_share / other_share),
                });
            }
        }
        let surplus = |difference: &Difference| difference.selection_share - difference.baseline_share;
        found.sort_by(|a, b| {
            surplus(b)
                .abs()
                .total_cmp(&surplus(a).abs())
                .then_with(|| surplus(b).total_cmp(&surplus(a)))
                .then_with(|| a.column.cmp(&b.column))
                .then_with(|| a.key.cmp(&b.key))
        });
        found.truncate(most);
        found
    }
}

#[expect(clippy::cast_precision_loss, reason = "shares are shown with three digits")]
const fn as_f64(count: u64) -> f64 {
    count as f64
}
