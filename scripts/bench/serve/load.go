package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

type result struct {
	rate float64 // requests a second
	p99  float64 // milliseconds
}

// load asks over and over on each of so many connections. The client does as
// little as it can, since it shares the processors with the server.
func load(address string, e endpoint, clients int, length time.Duration) (result, error) {
	type part struct {
		times []time.Duration
		err   error
	}
	parts := make(chan part, clients)
	start := time.Now()
	for range clients {
		go func() {
			times, err := client(address, e, start.Add(length))
			parts <- part{times, err}
		}()
	}
	var all []time.Duration
	var errs []error
	for range clients {
		p := <-parts
		all, errs = append(all, p.times...), append(errs, p.err)
	}
	took := time.Since(start)
	if err := errors.Join(errs...); err != nil {
		return result{}, err
	}
	slices.Sort(all)
	return result{float64(len(all)) / took.Seconds(), float64(all[len(all)*99/100]) / float64(time.Millisecond)}, nil
}

func client(address string, e endpoint, until time.Time) ([]time.Duration, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	request := []byte("GET " + e.path + " HTTP/1.1\r\nHost: " + address + "\r\n" + e.header + "\r\n")
	size, err := answerSize(conn, request, e.body)
	if err != nil {
		return nil, err
	}
	answer := make([]byte, size)
	var times []time.Duration
	for {
		start := time.Now()
		if start.After(until) {
			return times, nil
		}
		if _, err := conn.Write(request); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(conn, answer); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
		if !bytes.HasSuffix(answer, []byte(e.body)) {
			return nil, errors.New("another answer than expected")
		}
	}
}

// answerSize asks once. Every answer after that has the same length: headers
// and body are the same but for the digits of the date.
func answerSize(conn net.Conn, request []byte, body string) (int, error) {
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	var raw bytes.Buffer
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, &raw)), nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK || string(text) != body {
		return 0, fmt.Errorf("answered %s", resp.Status)
	}
	return raw.Len(), nil
}
