package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Logs opens a guest's serial log; with follow it goes on until ctx ends.
func (c *Client) Logs(ctx context.Context, name string, follow bool) (io.ReadCloser, error) {
	path, err := path("vms", name, fmt.Sprintf("/logs?follow=%t", follow))
	if err != nil {
		return nil, err
	}
	response, err := c.open(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// Console opens a guest's serial line.
func (c *Client) Console(ctx context.Context, name string) (io.ReadWriteCloser, error) {
	path, err := path("vms", name, "/console")
	if err != nil {
		return nil, err
	}
	header := http.Header{"Connection": {"Upgrade"}, "Upgrade": {consoleProtocol}}
	response, err := c.open(ctx, http.MethodPost, path, nil, header)
	if err != nil {
		return nil, err
	}
	line, ok := response.Body.(io.ReadWriteCloser)
	if !ok {
		response.Body.Close()
		return nil, Errorf(Failed, "the agent did not open a console")
	}
	return line, nil
}

// Events calls each for every event the filter selects, until each fails or,
// when following, ctx ends; then it returns ctx's error.
func (c *Client) Events(ctx context.Context, filter EventFilter, each func(Event) error) error {
	query := url.Values{"vm": {filter.VM}, "follow": {strconv.FormatBool(filter.Follow)}}
	if !filter.Since.IsZero() {
		query.Set("since", filter.Since.Format(time.RFC3339Nano))
	}
	response, err := c.open(ctx, http.MethodGet, "/v1/events?"+query.Encode(), nil, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxBody)
	for lines.Scan() {
		var line struct {
			Event
			Error *Error `json:"error"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return Errorf(Failed, "read an event: %v", err)
		}
		if line.Error != nil {
			return line.Error
		}
		if err := each(line.Event); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := lines.Err(); err != nil {
		return Errorf(Unreachable, "the agent stopped sending events: %v", err)
	}
	if filter.Follow {
		return Errorf(Unreachable, "the agent stopped sending events")
	}
	return nil
}
