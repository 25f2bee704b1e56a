package admin

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// A scrape for protobuf gets native histograms with their classic buckets.
func TestNativeHistograms(t *testing.T) {
	node := &fakeNode{}
	residence := &node.stats.Times.Residence
	residence.Add(0, 1)
	residence.Add(time.Second, 2)
	residence.Add(30*time.Second, 1)
	h := scrapeProtobuf(t, node)["distmsg_message_residence_seconds"].GetMetric()[0].GetHistogram()
	if h.GetSampleCount() != 4 || h.GetSampleSum() != 32 || h.GetSchema() != 2 || h.GetZeroCount() != 1 || h.GetCreatedTimestamp() == nil {
		t.Errorf("%v", h)
	}
	// 1 s is in the bucket that ends at 2^(0/4) s, and 30 s in the one that ends at 2^(20/4) s.
	if spans, deltas := h.GetPositiveSpan(), h.GetPositiveDelta(); len(spans) != 2 || spans[0].GetOffset() != 0 || spans[0].GetLength() != 1 ||
		spans[1].GetOffset() != 19 || len(deltas) != 2 || deltas[0] != 2 || deltas[1] != -1 {
		t.Errorf("spans %v, deltas %v", spans, deltas)
	}
	for _, b := range h.GetBucket() {
		want := uint64(1)
		if b.GetUpperBound() >= 1 {
			want = 3
		}
		if b.GetCumulativeCount() != want {
			t.Errorf("up to %v s: %d, want %d", b.GetUpperBound(), b.GetCumulativeCount(), want)
		}
	}
}

// scrapeProtobuf returns the metrics by name, as Prometheus gets them that wants native histograms.
func scrapeProtobuf(t *testing.T, node Node) map[string]*dto.MetricFamily {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	w := httptest.NewRecorder()
	Handler(node, Options{}).ServeHTTP(w, r)
	all := make(map[string]*dto.MetricFamily)
	decoder := expfmt.NewDecoder(bytes.NewReader(w.Body.Bytes()), expfmt.ResponseFormat(w.Header()))
	for {
		var f dto.MetricFamily
		if err := decoder.Decode(&f); err != nil {
			break
		}
		all[f.GetName()] = &f
	}
	return all
}
