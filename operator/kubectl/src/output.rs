//! Tables for people, JSON and YAML for scripts.

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table as kubectl prints it.
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// Prints rows as a table, or `data` for scripts.
pub fn print<T: Serialize>(format: Format, data: &T, header: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
    match format {
        Format::Table => println!("{}", table(header, rows)),
        Format::Json => println!("{}", serde_json::to_string_pretty(data)?),
        Format::Yaml => print!("{}", serde_yaml_ng::to_string(data)?),
    }
    Ok(())
}

/// A table without lines, columns three spaces apart.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A text of another party, without characters that would steer a terminal.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What is shown where nothing is known.
pub fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |t| t.to_string())
}
