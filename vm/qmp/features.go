package qmp

import "context"

// Features tells which of the things the product uses a QEMU has. That a
// command exists does not prove that it works.
type Features struct {
	// Checkpoints and restore.
	SaveDeviceState bool `json:"save_device_state"` // xen-save-devices-state with live
	AddFD           bool `json:"add_fd"`
	GetFD           bool `json:"getfd"`
	MigrateIncoming bool `json:"migrate_incoming"`
	IgnoreShared    bool `json:"x_ignore_shared"`
	// Disks.
	MirrorWriteBlocking  bool `json:"mirror_write_blocking"`
	MirrorActivelySynced bool `json:"mirror_actively_synced"` // told from QEMU 10.0 on
	NBDReconnect         bool `json:"nbd_reconnect"`
	BlockExport          bool `json:"block_export"`
	BlockJobCancel       bool `json:"block_job_cancel"`
	Yank                 bool `json:"yank"` // of a block node, out of band
	TransactionBitmap    bool `json:"transaction_bitmap"`
	TransactionBackup    bool `json:"transaction_backup"`
	// Migration and network.
	PauseBeforeSwitchover bool `json:"pause_before_switchover"`
	PostCopy              bool `json:"postcopy"`
	Multifd               bool `json:"multifd"`
	AnnounceSelf          bool `json:"announce_self"`
	Dgram                 bool `json:"dgram"` // netdev
}

// QueryFeatures asks QEMU for its schema and looks them up.
func QueryFeatures(ctx context.Context, c Executor) (Features, error) {
	s, err := QuerySchema(ctx, c)
	if err != nil {
		return Features{}, err
	}
	return s.Features(), nil
}

// Features looks the product's needs up in the schema.
func (s *Schema) Features() Features {
	capability := func(name string) bool {
		return s.Has("migrate-set-capabilities", "capabilities", "capability", name)
	}
	return Features{
		SaveDeviceState: s.Has("xen-save-devices-state", "live"),
		AddFD:           s.Has("add-fd") && s.Has("remove-fd"),
		GetFD:           s.Has("getfd"),
		MigrateIncoming: s.Has("migrate-incoming", "uri"),
		IgnoreShared:    capability("x-ignore-shared"),

		MirrorWriteBlocking: s.Has("blockdev-mirror", "copy-mode", "write-blocking"),
		MirrorActivelySynced: s.Returns("query-block-jobs", "mirror", "actively-synced") ||
			s.Returns("query-block-jobs", "actively-synced"),
		NBDReconnect:      s.Has("blockdev-add", "nbd", "reconnect-delay"),
		BlockExport:       s.Has("block-export-add", "nbd") && s.Has("nbd-server-start", "addr", "unix"),
		BlockJobCancel:    s.Has("block-job-cancel", "force"),
		Yank:              s.Has("yank", "instances", "block-node") && s.AllowsOOB("yank"),
		TransactionBitmap: s.Has("transaction", "actions", "block-dirty-bitmap-add"),
		TransactionBackup: s.Has("transaction", "actions", "blockdev-backup"),

		PauseBeforeSwitchover: capability("pause-before-switchover"),
		PostCopy:              capability("postcopy-ram"),
		Multifd:               capability("multifd"),
		AnnounceSelf:          s.Has("announce-self"),
		Dgram:                 s.Has("netdev_add", "dgram"),
	}
}

// Missing names what is not there, for the given use, by QEMU's words.
// MirrorActivelySynced is not counted: the product does without.
func (f Features) Missing() []string {
	var missing []string
	for _, need := range []struct {
		there bool
		name  string
	}{
		{f.SaveDeviceState, "xen-save-devices-state live"},
		{f.AddFD, "add-fd"},
		{f.GetFD, "getfd"},
		{f.MigrateIncoming, "migrate-incoming"},
		{f.IgnoreShared, "capability x-ignore-shared"},
		{f.MirrorWriteBlocking, "blockdev-mirror copy-mode=write-blocking"},
		{f.NBDReconnect, "nbd reconnect-delay"},
		{f.BlockExport, "block-export-add nbd"},
		{f.BlockJobCancel, "block-job-cancel force"},
		{f.Yank, "yank block-node"},
		{f.TransactionBitmap, "transaction block-dirty-bitmap-add"},
		{f.TransactionBackup, "transaction blockdev-backup"},
		{f.PauseBeforeSwitchover, "capability pause-before-switchover"},
		{f.PostCopy, "capability postcopy-ram"},
		{f.Multifd, "capability multifd"},
		{f.AnnounceSelf, "announce-self"},
		{f.Dgram, "netdev dgram"},
	} {
		if !need.there {
			missing = append(missing, need.name)
		}
	}
	return missing
}
