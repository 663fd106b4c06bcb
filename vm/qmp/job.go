package qmp

import "context"

// BlockJob is a running job of the block layer, as query-block-jobs shows it.
type BlockJob struct {
	ID       string `json:"device"` // the job id
	Type     string `json:"type"`   // mirror, backup, ...
	Status   string `json:"status"` // running, ready, standby, ...
	IOStatus string `json:"io-status"`
	Len      int64  `json:"len"`    // bytes
	Offset   int64  `json:"offset"` // bytes
	Speed    int64  `json:"speed"`  // bytes per second, 0 without limit
	Busy     bool   `json:"busy"`
	Paused   bool   `json:"paused"`
	Ready    bool   `json:"ready"`
	Error    string `json:"error"` // empty without one
	// ActivelySynced is nil before QEMU 10.0, which does not tell.
	ActivelySynced *bool `json:"actively-synced"`
}

// QueryBlockJobs lists the block jobs. A job that has ended is not among them.
func QueryBlockJobs(ctx context.Context, c Executor) ([]BlockJob, error) {
	var jobs []BlockJob
	err := c.Execute(ctx, "query-block-jobs", nil, &jobs)
	return jobs, err
}

// Job is any background job, as query-jobs shows it.
type Job struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Status  string `json:"status"`
	Current int64  `json:"current-progress"` // in units of the job
	Total   int64  `json:"total-progress"`
	Error   string `json:"error"` // empty without one
}

// QueryJobs lists all jobs, those that ended and wait to be dismissed too.
func QueryJobs(ctx context.Context, c Executor) ([]Job, error) {
	var jobs []Job
	err := c.Execute(ctx, "query-jobs", nil, &jobs)
	return jobs, err
}

// BlockJobCancel asks a job to end. A ready mirror ends in good order, unless
// force; a mirror whose target does not answer ends only with force. The job is
// gone at its event BLOCK_JOB_CANCELLED or BLOCK_JOB_COMPLETED. One that does not
// exist is ClassDeviceNotActive.
func BlockJobCancel(ctx context.Context, c Executor, job string, force bool) error {
	return c.Execute(ctx, "block-job-cancel", struct {
		Device string `json:"device"`
		Force  bool   `json:"force"`
	}{job, force}, nil)
}

// JobDismiss forgets a job that has ended and was made with auto-dismiss=false.
func JobDismiss(ctx context.Context, c Executor, job string) error {
	return c.Execute(ctx, "job-dismiss", struct {
		ID string `json:"id"`
	}{job}, nil)
}
