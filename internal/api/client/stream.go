package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
)

// maxLine is more than any event takes.
const maxLine = 1 << 20

// Stream asks for server-sent events and hands them out one by one, with their
// name ("" if they have none), until the context ends or the server does. It ends
// with an error in any case.
func (c *Client) Stream(ctx context.Context, path string, parameters url.Values, yield func(name, data string) error) error {
	body, err := c.Get(ctx, path, parameters)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxLine)
	name, data := "", []string(nil)
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			name = value
		case "data":
			data = append(data, value)
		case "":
			if lines.Text() == "" && data != nil {
				if err := yield(name, strings.Join(data, "\n")); err != nil {
					return err
				}
			}
			if lines.Text() == "" {
				name, data = "", nil
			}
		}
	}
	if err = lines.Err(); err == nil {
		err = errors.New("it ended the stream")
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the connection broke")
	}
	return fmt.Errorf("read the stream of %s: %w", c.name, err)
}
