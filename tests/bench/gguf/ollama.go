// Runs Ollama templates with Go's text/template and compares the texts with those of Jinja.
// tests/bench/gguf/ollama.py writes the file of cases and runs this program.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/template"
)

type message struct{ Role, Content string }

type conversation struct {
	Name, Template, Want string
	Messages             []message
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	text, err := os.ReadFile(os.Args[1])
	check(err)
	var all []conversation
	check(json.Unmarshal(text, &all))
	equal := 0
	for _, one := range all {
		parsed, err := template.New(one.Name).Parse(one.Template)
		check(err)
		var written strings.Builder
		check(parsed.Execute(&written, map[string]any{"Messages": one.Messages}))
		if written.String() == one.Want {
			equal++
		} else {
			fmt.Printf("%s: %q, not %q\n", one.Name, written.String(), one.Want)
		}
	}
	fmt.Printf("%d of %d conversations give the text of the Jinja template\n", equal, len(all))
	if equal < len(all) {
		os.Exit(1)
	}
}
