package witness

import (
	"bytes"
	"context"
	"crypto/x509"
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

// enrol takes a cluster in, if its token is the one given out.
func (w *Witness) enrol(_ context.Context, conn *wire.Conn, hello wire.Hello) {
	var request peer.EnrolRequest
	err := peer.Answer(conn, &request, func() (any, error) {
		if request.Cluster != hello.Cluster {
			return nil, refuse(api.Usage, "the enrolment names two clusters")
		}
		if err := checkRequest(request); err != nil {
			return nil, err
		}
		if err := w.useToken(request.Secret, func() error { return w.unclaimed(request) }); err != nil {
			return nil, err
		}
		record := clusterRecord{Name: request.ClusterName, CACert: request.CACert}
		err := w.db.Update(func(tx *store.Tx) error {
			_, err := clusterTable.Put(tx, request.Cluster, record)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("store the cluster: %w", err)
		}
		if err := w.open(request.Cluster, request.ClusterName); err != nil {
			return nil, err
		}
		w.config.Log.Info("cluster enrolled", "cluster", request.ClusterName, "id", request.Cluster)
		return peer.EnrolReply{Witness: w.self.Name}, nil
	})
	if err != nil {
		w.config.Log.Info("enrolment refused", "cluster", hello.Cluster, "error", err)
	}
}

// checkRequest refuses what cannot be a cluster of ours. The id is part of the
// keys under which leases are stored, so only its canonical form is taken:
// another might reach into a second cluster's.
func checkRequest(request peer.EnrolRequest) error {
	if id, err := uuid.Parse(request.Cluster); err != nil || id.String() != request.Cluster {
		return refuse(api.Usage, "the enrolment does not name a cluster by its id")
	}
	if _, err := x509.ParseCertificate(request.CACert); err != nil {
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
