package api

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/srodi/ebpf-server/internal/query"
	"github.com/srodi/ebpf-server/internal/store"
)

func TestStorage(t *testing.T) {
	st := openStore(t)
	fill(st, start)
	if err := st.Flush(); err != nil {
		t.Fatal(err)
	}
	base := serve(t, func(o *Options) { o.Store = st })
	for _, detail := range []bool{false, true} {
		var got query.Storage
		if err := json.Unmarshal(get(t, base+"/api/storage?detail="+map[bool]string{false: "0", true: "true"}[detail], http.StatusOK), &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Types) != 2 || got.Types[0].Name != "connection" || got.Types[0].Events != 10 || got.FileBytes == 0 {
			t.Errorf("storage: %+v", got)
		}
		if (len(got.Types[0].Hours) > 0) != detail {
			t.Errorf("detail %v: hours %v", detail, got.Types[0].Hours)
		}
	}
	if got := string(get(t, base+"/api/storage?detail=much", http.StatusBadRequest)); !strings.Contains(got, `"field":"detail"`) {
		t.Errorf("bad detail: %s", got)
	}
}

// The copy is a db file with the same events.
func TestSnapshot(t *testing.T) {
	st := openStore(t)
	fill(st, start)
	base := serve(t, func(o *Options) { o.Store = st })
	path := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(path, get(t, base+"/api/storage/snapshot", http.StatusOK), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(store.Options{Path: path, Types: testTypes, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Check(nil); err != nil {
		t.Error(err)
	}
	if got, err := s.Storage(false); err != nil || got.Types[0].Events != 10 {
		t.Errorf("storage of the copy: %+v, %v", got, err)
	}
	get(t, base+"/api/storage/snapshot?to=file", http.StatusBadRequest)
}

func TestPins(t *testing.T) {
	st := openStore(t)
	base := serve(t, func(o *Options) { o.Store = st }) + "/api/storage/pins"
	if got := string(get(t, base, http.StatusOK)); !strings.Contains(got, `"pins":[]`) {
		t.Errorf("no pins: %s", got)
	}
	for _, bad := range []struct{ body, want string }{
		{`{"until":"now"}`, `"field":"since"`},
		{`{"since":"-1h"}`, `"field":"until"`},
		{`{"since":"now","until":"-1h"}`, `"field":"until"`},
		{`{"since":"-1h","until":"now","colour":"red"}`, `"field":"colour"`},
		{`{"since":"-1h","until":"now","note":"` + strings.Repeat("x", maxNote+1) + `"}`, `"field":"note"`},
	} {
		if got := string(request(t, http.MethodPost, base, bad.body, http.StatusBadRequest)); !strings.Contains(got, bad.want) {
			t.Errorf("%.60s: %s", bad.body, got)
		}
	}
	var pin query.Pin
	if err := json.Unmarshal(request(t, http.MethodPost, base, `{"since":"-2h","until":"-1h","note":"incident 42"}`, http.StatusCreated), &pin); err != nil {
		t.Fatal(err)
	}
	if pin.ID == "" || pin.Note != "incident 42" || pin.Until.Sub(pin.Since).Hours() != 1 {
		t.Errorf("pin: %+v", pin)
	}
	if got := string(get(t, base, http.StatusOK)); !strings.Contains(got, pin.ID) {
		t.Errorf("pins: %s", got)
	}
	request(t, http.MethodDelete, base+"/"+pin.ID, "", http.StatusNoContent)
	request(t, http.MethodDelete, base+"/"+pin.ID, "", http.StatusNotFound)
	if got := string(get(t, base, http.StatusOK)); !strings.Contains(got, `"pins":[]`) {
		t.Errorf("after removal: %s", got)
	}
}
