//go:build cgo

// Command duckdb stands for DuckDB's own shell in tests: duckdb -c SQL [DATABASE]
// runs statements with the real DuckDB, which there is as a Go module, and prints what
// they return, tab-separated. No registry that the tests may use has the shell.
package main

import (
	"database/sql"
	"flag"
	"fmt"
	"os"
	"strings"

	_ "github.com/duckdb/duckdb-go/v2"
)

func main() {
	statements := flag.String("c", "", "SQL statements")
	flag.Parse()
	if err := run(flag.Arg(0), *statements); err != nil {
		fmt.Fprintln(os.Stderr, "duckdb:", err)
		os.Exit(1)
	}
}

func run(database, statements string) error {
	db, err := sql.Open("duckdb", database)
	if err != nil {
		return err
	}
	defer db.Close()
	rows, err := db.Query(statements)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	fmt.Println(strings.Join(columns, "\t"))
	values, texts := make([]any, len(columns)), make([]string, len(columns))
	for rows.Next() {
		pointers := make([]any, len(columns))
		for i := range values {
			pointers[i] = &values[i]
		}
		if err := rows.Scan(pointers...); err != nil {
			return err
		}
		for i, value := range values {
			texts[i] = fmt.Sprint(value)
		}
		fmt.Println(strings.Join(texts, "\t"))
	}
	return rows.Err()
}
