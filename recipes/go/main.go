// Publish a request to Tonestream and print its one result.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: classify URL")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	result, err := classify(ctx, os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(string(result))
}

// classify publishes a request for the audio at this URL, and returns its result.
func classify(ctx context.Context, audioURL string) ([]byte, error) {
	prefix := setting("TOPIC_PREFIX", "tonestream")
	requestID := setting("REQUEST_ID", "go-"+rand.Text())
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(setting("KAFKA", "localhost:9092"), ",")...),
		kgo.ConsumeTopics(prefix+".results"),
		// Others would show results of workers that died before their commit.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// From before the request on, whenever the topic is first looked at; the clocks may differ by a minute.
		kgo.ConsumeResetOffset(kgo.NewOffset().AfterMilli(time.Now().Add(-time.Minute).UnixMilli())),
	)
	if err != nil {
		return nil, err
	}
	defer client.Close()

	request, err := json.Marshal(map[string]string{"request_id": requestID, "audio_url": audioURL})
	if err != nil {
		return nil, err
	}
	record := &kgo.Record{Topic: prefix + ".requests", Key: []byte(requestID), Value: request}
	if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
		return nil, fmt.Errorf("the request was not stored: %w", err)
	}

	for {
		fetches := client.PollFetches(ctx)
		if err := errors.Join(ctx.Err(), fetches.Err()); err != nil {
			return nil, err
		}
		for record := range fetches.RecordsAll() {
			var result struct {
				RequestID string `json:"request_id"`
			}
			if json.Unmarshal(record.Value, &result) == nil && result.RequestID == requestID {
				return record.Value, nil
			}
		}
	}
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
