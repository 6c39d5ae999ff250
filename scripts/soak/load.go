package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A load asks for credentials at a steady rate, each time in another way, and
// checks what it gets.
type load struct {
	d       *daemon
	keep    *http.Client // keeps its connections
	fresh   *http.Client // makes a new one each time, as most SDKs do
	ok, bad atomic.Uint64

	mu    sync.Mutex
	first error
}

func newLoad(d *daemon) *load {
	return &load{d: d,
		keep:  &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 10 * time.Second},
		fresh: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second},
	}
}

func (l *load) String() string { return fmt.Sprintf("%d answers, %d bad", l.ok.Load(), l.bad.Load()) }

func (l *load) run(ctx context.Context, rate int) {
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	slots := make(chan struct{}, 64)
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			if err := l.ask(n); err != nil {
				l.fail(err)
			} else {
				l.ok.Add(1)
			}
		}()
	}
}

func (l *load) fail(err error) {
	l.bad.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		l.first = fmt.Errorf("%s: %w", time.Now().Format(time.TimeOnly), err)
	}
}

func (l *load) verdict() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first != nil {
		return fmt.Errorf("%v; the first: %w", l, l.first)
	}
	if l.ok.Load() == 0 {
		return errors.New("nothing was asked")
	}
	return nil
}

func (l *load) ask(n int) error {
	client := l.keep
	if n%4 == 0 {
		client = l.fresh
	}
	if n%2 == 0 {
		text, err := l.do(client, http.MethodGet, "/role/ecs", "Authorization", authorization)
		if err != nil {
			return err
		}
		return l.check(text)
	}
	token, err := l.do(client, http.MethodPut, "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "300")
	if err != nil {
		return err
	}
	text, err := l.do(client, http.MethodGet, "/latest/meta-data/iam/security-credentials/imds", "X-aws-ec2-metadata-token", token)
	if err != nil {
		return err
	}
	return l.check(text)
}

func (l *load) do(client *http.Client, method, path, header, value string) (string, error) {
	req, err := http.NewRequest(method, l.d.base+path, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set(header, value)
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, strings.TrimSpace(string(text)))
	}
	return string(text), nil
}

func (l *load) check(text string) error {
	var c struct {
		AccessKeyId, SecretAccessKey, Token string
		Expiration                          time.Time
	}
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	s, ok := l.d.aws.Session(c.AccessKeyId)
	switch {
	case !ok || s.SecretAccessKey != c.SecretAccessKey || s.SessionToken != c.Token || !s.Expiration.Equal(c.Expiration):
		return errors.New("credentials that were never issued together")
	case !time.Now().Before(c.Expiration):
		return errors.New("credentials that are over")
	}
	return nil
}
