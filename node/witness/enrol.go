package witness

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/google/uuid"

	"vmctl/node/api"
	"vmctl/node/peer"
	"vmctl/node/wire"
	"vmctl/store"
)

// Enrol implements porter.House: it takes a cluster in, if its token is the one
// given out.
func (w *Witness) Enrol(request peer.EnrolRequest) error {
	if err := checkRequest(request); err != nil {
		return err
	}
	if err := w.useToken(request.Secret, func() error { return w.unclaimed(request) }); err != nil {
		return err
	}
	record := clusterRecord{Name: request.ClusterName, CACert: request.CACert}
	err := w.db.Update(func(tx *store.Tx) error {
		_, err := clusterTable.Put(tx, request.Cluster, record)
		return err
	})
	if err != nil {
		return fmt.Errorf("store the cluster: %w", err)
	}
	if err := w.open(request.Cluster, request.ClusterName); err != nil {
		return err
	}
	w.config.Log.Info("cluster enrolled", "cluster", request.ClusterName, "id", request.Cluster)
	return nil
}

// checkRequest refuses what cannot be a cluster of ours. The id is part of the
// keys under which leases are stored, so only its canonical form is taken:
// another might reach into a second cluster's. The porter has read the
// certificate.
func checkRequest(request peer.EnrolRequest) error {
	if id, err := uuid.Parse(request.Cluster); err != nil || id.String() != request.Cluster {
		return refuse(api.Usage, "the enrolment does not name a cluster by its id")
	}
	if len(request.CACert) == 0 {
		return refuse(api.Usage, "the enrolment has no certificate of the cluster")
	}
	name := request.ClusterName
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, unicode.IsControl) {
		return refuse(api.Usage, "the enrolment does not say the cluster's name")
	}
	return nil
}

// unclaimed refuses an id that another authority has enrolled: whoever holds a
// token must not get at a cluster that is here already.
func (w *Witness) unclaimed(request peer.EnrolRequest) error {
	known, err := w.stored(request.Cluster)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case !bytes.Equal(known.CACert, request.CACert):
		return refuse(api.Unsafe, "a cluster of this id is enrolled here with another certificate")
	}
	return nil
}

// stored is what is known of a cluster that enrolled, or store.ErrNotFound.
func (w *Witness) stored(id string) (record clusterRecord, err error) {
	err = w.db.View(func(tx *store.Tx) error {
		row, err := clusterTable.Get(tx, id)
		record = row.Value
		return err
	})
	return record, err
}

func refuse(code api.Code, text string) error {
	return &wire.Refused{Code: string(code), Message: text}
}
